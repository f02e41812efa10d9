"""One glob, from text to regular expression. Pure; the rules are told in ``patterns.py``.

A ``*`` can backtrack only against what follows the last one of its component, and ``**`` only against
what follows the last ``**``: everything before is matched at its first possible place and then kept
(an atomic group). That is enough, because what follows begins with a star, which takes up any slack.
"""

import re
from typing import Final, TypeAlias

STAR: Final = b"*"
Token: TypeAlias = bytes
"""A regular expression for exactly one byte, or `STAR`."""
Component: TypeAlias = tuple[Token, ...] | None
"""The pattern of one name, or ``None`` for ``**``."""

_SLASH = 0x2F
_ANY = rb"[^/]"
_CLASSES = {
    b"alnum": rb"[0-9A-Za-z]",
    b"alpha": rb"[A-Za-z]",
    b"blank": rb"[ \t]",
    b"cntrl": rb"[\x00-\x1f\x7f]",
    b"digit": rb"[0-9]",
    b"graph": rb"[\x21-\x7e]",
    b"lower": rb"[a-z]",
    b"print": rb"[\x20-\x7e]",
    b"punct": rb"[\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]",
    b"space": rb"[ \t\n\v\f\r]",
    b"upper": rb"[A-Z]",
    b"xdigit": rb"[0-9A-Fa-f]",
}
_CLASS_BYTES = {
    name: frozenset(b for b in range(256) if re.fullmatch(regex, bytes((b,))))
    for name, regex in _CLASSES.items()
}


def parse_components(text: bytes) -> tuple[Component, ...]:
    """Split a pattern (without its ``!``) into components; leading, trailing, double slashes do not count.

    Raises `ValueError`, with a predicate as its text, for a pattern that can match nothing.
    """
    components: list[Component] = []
    tokens: list[Token] = []
    start = at = 0
    while at < len(text):
        byte = text[at]
        if byte == _SLASH:
            _finish(components, tokens, text[start:at])
            at += 1
            start = at
        elif byte == 0x2A:
            if not tokens or tokens[-1] != STAR:
                tokens.append(STAR)
            at += 1
        elif byte == 0x3F:
            tokens.append(_ANY)
            at += 1
        elif byte == 0x5B:
            members, at = _parse_set(text, at + 1)
            tokens.append(_regex_of_set(members))
        elif byte == 0x5C:
            if at + 1 == len(text):
                raise ValueError("ends in a backslash that escapes nothing")
            tokens.append(re.escape(text[at + 1 : at + 2]))
            at += 2
        else:
            tokens.append(re.escape(text[at : at + 1]))
            at += 1
    _finish(components, tokens, text[start:])
    if not components:
        raise ValueError("names nothing")
    return tuple(components)


def regex_of_name(component: Component) -> bytes:
    """Return an expression that matches a whole name."""
    if component is None:  # without a slash beside it, ** is nothing but *
        return rb"[^/]*"
    runs: list[list[Token]] = [[]]
    for token in component:
        if token == STAR:
            runs.append([])
        else:
            runs[-1].append(token)
    head, *middle = [b"".join(run) for run in runs]
    if not middle:
        return head
    last = middle.pop()
    return head + b"".join(rb"(?>[^/]*?" + run + b")" for run in middle) + rb"[^/]*" + last


def regex_of_path(components: tuple[Component, ...]) -> bytes:
    """Return an expression that matches a whole relative path."""
    runs: list[list[bytes]] = [[]]
    for component in components:
        if component is None:
            runs.append([])
        else:
            runs[-1].append(regex_of_name(component))
    head, *middle = runs
    if not middle:
        return b"/".join(head)
    last = middle.pop()
    parts = [b"".join(name + b"/" for name in head)]
    parts += [rb"(?>(?:[^/]+/)*?" + b"".join(name + b"/" for name in run) + b")" for run in middle if run]
    parts.append(rb"(?:[^/]+/)*" + b"/".join(last) if last else rb".+")
    return b"".join(parts)


def _finish(components: list[Component], tokens: list[Token], text: bytes) -> None:
    if text in {b".", b".."}:
        raise ValueError("contains '.' or '..', which no path here does")
    if tokens:
        is_globstar = tokens == [STAR] and len(text) > 1
        components.append(None if is_globstar else tuple(tokens))
        tokens.clear()


def _parse_set(text: bytes, at: int) -> tuple[frozenset[int], int]:
    """Parse a bracket expression from behind its ``[``; returns its bytes and where it ends."""
    negated = text[at : at + 1] in {b"!", b"^"}
    at += negated
    members: set[int] = set()
    previous = -1  # what a following "-" would start from
    first = True
    while first or text[at : at + 1] != b"]":
        first = False
        colon = text.find(b":]", at + 2) if text[at : at + 2] == b"[:" else -1
        if colon > 0 and b"]" not in text[at + 2 : colon]:
            name = text[at + 2 : colon]
            if name not in _CLASS_BYTES:
                raise ValueError("names a class of characters that is not known")
            members |= _CLASS_BYTES[name]
            previous = -1
            at = colon + 2
        elif text[at : at + 1] == b"-" and previous >= 0 and text[at + 1 : at + 2] not in {b"", b"]"}:
            upper, at = _member(text, at + 1)
            members.update(range(previous, upper + 1))
            previous = -1
        else:
            previous, at = _member(text, at)
            members.add(previous)
    if negated:
        members = set(range(256)) - members
    return frozenset(members - {_SLASH}), at + 1


def _member(text: bytes, at: int) -> tuple[int, int]:
    at += text[at : at + 1] == b"\\"
    if at >= len(text):
        raise ValueError("opens a '[' that is not closed")
    return text[at], at + 1


def _regex_of_set(members: frozenset[int]) -> bytes:
    if not members:
        raise ValueError("contains a '[…]' that no byte fits")
    return b"[" + b"".join(rb"\x%02x" % byte for byte in sorted(members)) + b"]"
