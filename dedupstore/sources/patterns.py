r"""Which paths are excluded: gitignore's rules, on bytes, for more than one root.

One pattern a line; the last one that matches decides.

==================  ==============================================================================
``# text``, empty   nothing (``\#`` for a name that begins with ``#``)
``!pattern``        takes back an earlier exclusion (``\!`` for a name that begins with ``!``)
``name``            any entry of that name, however deep
``name/``           only folders
``a/b``             a slash inside: the path from one of the roots (the source paths)
``/a/b``            a slash in front: the path from one of the roots, *or* the absolute path ``/a/b``
``*`` ``?``         any bytes, one byte, but never a slash
``[a-z]`` ``[!a]``  one byte of a set (``[^a]`` too, and ``[[:digit:]]`` and its like)
``**/a``  ``a/**``  ``a`` at any depth; everything inside ``a``
``a/**/b``          ``b`` below ``a`` with any number of folders between them
``\x``              the byte ``x`` itself
==================  ==============================================================================

An excluded folder is not entered, so nothing inside it can be taken back. Trailing spaces are ignored
unless escaped. Bytes are bytes: ``?`` is one of them, also in UTF-8. Where gitignore silently ignores a
pattern that can match nothing (``/``, ``./a``, ``[a``, a ``\`` at the end), `UsageError` is raised.
Repeated slashes count as one.

All patterns are compiled once into a few regular expressions without exponential cases; a
`PatternSet` is immutable and may be used by any thread.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dedupstore.errors import UsageError
from dedupstore.findings import printable
from dedupstore.sources.globs import Component, parse_components, regex_of_name, regex_of_path

_SPECIAL = re.compile(rb"[\\*?\[!# ]")


@dataclass(frozen=True, slots=True)
class _Pattern:
    line: bytes
    excludes: bool
    folders_only: bool
    anchored: bool
    absolute_too: bool
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class _Matcher:
    """Neighbouring patterns that decide alike, as one question about the name and one about the path."""

    excludes: bool
    name: re.Pattern[bytes] | None
    path: re.Pattern[bytes] | None


class PatternSet:
    """Patterns in order, for paths under ``roots`` (absolute, without a slash at the end).

    Raises `UsageError`, naming the pattern, for one that is malformed or can match nothing.
    """

    def __init__(self, lines: Iterable[bytes], roots: Sequence[bytes] = (b"/",)) -> None:
        patterns = [pattern for line in lines if (pattern := _parse(line)) is not None]
        self._roots = tuple(root.rstrip(b"/") for root in roots)
        self._for_folders = _compile(patterns, self._roots)
        self._for_others = _compile([p for p in patterns if not p.folders_only], self._roots)

    @staticmethod
    def parse(content: bytes) -> tuple[bytes, ...]:
        """Return the patterns of an exclude file: its lines without comments and blank ones."""
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        lines = [line.removesuffix(b"\r") for line in lines]
        return tuple(line for line in lines if line.strip() and not line.startswith(b"#"))

    def excluded(self, path: bytes, is_dir: bool) -> bool:
        """Whether the patterns exclude this absolute path itself; what is above it is not looked at."""
        matchers = self._for_folders if is_dir else self._for_others
        name = path[path.rfind(b"/") + 1 :]
        for matcher in matchers:
            if matcher.name is not None and matcher.name.fullmatch(name):
                return matcher.excludes
            if matcher.path is not None and matcher.path.fullmatch(path):
                return matcher.excludes
        return False

    def excluded_within(self, path: bytes, is_dir: bool) -> bool:
        """Whether this path, or a folder above it and below its root, is excluded.

        For callers that do not come from above, one folder after the other. A root is never excluded.
        """
        if path.rstrip(b"/") in self._roots:
            return False
        above = [root for root in self._roots if path.startswith(root + b"/")]
        end = path.find(b"/", len(min(above, key=len)) + 1 if above else 1)
        while end > 0:
            if self.excluded(path[:end], is_dir=True):
                return True
            end = path.find(b"/", end + 1)
        return self.excluded(path, is_dir)


def escape(name: bytes) -> bytes:
    """Return the pattern that means exactly these bytes."""
    return _SPECIAL.sub(rb"\\\g<0>", name)


def _parse(line: bytes) -> _Pattern | None:
    text = _without_trailing_spaces(line)
    if not text or text.startswith(b"#"):
        return None
    excludes = not text.startswith(b"!")
    text = text if excludes else text[1:]
    folders_only = text.endswith(b"/")
    absolute_too = text.startswith(b"/")
    try:
        components = parse_components(text)
    except ValueError as error:
        raise UsageError(
            f"the pattern {printable(line)!r} {error}: correct it or leave it out", pattern=line
        ) from error
    anchored = absolute_too or len(components) > 1
    return _Pattern(line, excludes, folders_only, anchored, absolute_too, components)


def _without_trailing_spaces(line: bytes) -> bytes:
    text = line.rstrip(b" ")
    if len(text) == len(line):
        return text
    backslashes = len(text) - len(text.rstrip(b"\\"))
    return text + b" " if backslashes % 2 else text


def _compile(patterns: Sequence[_Pattern], roots: Sequence[bytes]) -> tuple[_Matcher, ...]:
    """Return matchers, the one that decides first in front."""
    matchers: list[_Matcher] = []
    start = 0
    for end in range(1, len(patterns) + 1):
        if end == len(patterns) or patterns[end].excludes != patterns[start].excludes:
            matchers.append(_matcher(patterns[start:end], roots))
            start = end
    matchers.reverse()
    return tuple(matchers)


def _matcher(patterns: Sequence[_Pattern], roots: Sequence[bytes]) -> _Matcher:
    names = [regex_of_name(p.components[0]) for p in patterns if not p.anchored]
    starts = b"|".join(re.escape(root) for root in roots)
    paths = []
    for absolute_too in (False, True):
        bodies = [
            regex_of_path(p.components) for p in patterns if p.anchored and p.absolute_too == absolute_too
        ]
        if bodies:
            lead = starts + b"|" if absolute_too else starts
            paths.append(b"(?:" + lead + b")/(?:" + b"|".join(bodies) + b")")
    return _Matcher(
        patterns[0].excludes,
        re.compile(b"|".join(names), re.DOTALL) if names else None,
        re.compile(b"|".join(paths), re.DOTALL) if paths else None,
    )
