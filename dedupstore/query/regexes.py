"""Regular expressions of queries, by Python's own engine; what the two read differently is refused.

Python's engine can not be stopped while it works, and tries one way after the other: a pattern in which
something unbounded is repeated without bound (``(a+)+``) could hold the whole server, so it is refused. That
does not catch every slow pattern (``(a|a)*``, ``.*.*.*x``); a long text costs such a pattern much time.
"""

import re
import threading
import warnings
from functools import lru_cache

from dedupstore.query.failures import QueryError, bad_value, not_done

LONGEST = 16_384
"""Bytes of a pattern."""

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "u": re.NOFLAG}
_CLASSES = re.compile(r"\\[dDwWsSbB]")
_POSIX = re.compile(r"\[[:.=]")
_OPEN_REPEAT = re.compile(r"\{,")
_UNBOUNDED = re.compile(r"[*+]|\{\d+,\}")
_NAMED = re.compile(r"\(\?<(?=[A-Za-z_])")
_COMPILING = threading.Lock()
"""`warnings.catch_warnings` changes the whole process for a moment."""


@lru_cache(64)
def compiled(pattern: str, options: str) -> re.Pattern[str]:
    """Return a pattern with MongoDB's options. Raises `QueryError`."""
    if len(pattern) > LONGEST:
        raise bad_value(f"Regular expression is too long: at most {LONGEST} characters")
    flags = re.NOFLAG
    for letter in options:
        if letter not in _FLAGS:
            raise bad_value(f"invalid flag in regex options: {letter}")
        flags |= _FLAGS[letter]
    if _CLASSES.search(pattern):
        # \w and the like mean ASCII to MongoDB; Python's flag for that makes letters' cases ASCII too.
        if flags & re.IGNORECASE and not pattern.isascii():
            raise not_done("a regular expression with option i, letters beyond ASCII and a class such as \\w")
        flags |= re.ASCII
    return _compile(_translated(pattern), flags)


def _compile(pattern: str, flags: re.RegexFlag) -> re.Pattern[str]:
    try:
        with _COMPILING, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(pattern, flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise bad_value(
            f"Regular expression is invalid, or has a part not supported here: {error}"
        ) from error


def _translated(pattern: str) -> str:
    """Write the few things that differ in Python's way; raises `QueryError` for what can not be."""
    if _POSIX.search(pattern):
        raise not_done("a POSIX class such as [:alpha:] in a regular expression")
    if _OPEN_REPEAT.search(pattern):
        raise not_done("a repetition {,n} in a regular expression")
    _check_nested(pattern)
    pattern = _NAMED.sub("(?P<", pattern)
    return re.sub(
        r"\\(.)",
        lambda found: {"z": r"\Z", "Z": r"(?=\n?\Z)"}.get(found[1], found[0]),
        pattern,
        flags=re.DOTALL,
    )


def _check_nested(pattern: str) -> None:
    """Refuse a group that repeats without bound, and is repeated without bound."""
    open_groups: list[bool] = []
    repeats, at = False, 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at += 2
            continue
        if letter == "[":
            at = _after_class(pattern, at)
            continue
        if letter == "(":
            open_groups.append(repeats)
            repeats = False
        elif letter == ")" and open_groups:
            inside, repeats = repeats, open_groups.pop()
            again = _UNBOUNDED.match(pattern, at + 1) is not None
            if inside and again:
                raise _nested()
            repeats = repeats or inside or again
        elif _UNBOUNDED.match(pattern, at):
            repeats = True
        at += 1


def _after_class(pattern: str, at: int) -> int:
    """Return where a class of characters ends; one that begins with ] has that in it."""
    at += 2 if pattern[at + 1 : at + 2] == "^" else 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1


def _nested() -> QueryError:
    return not_done("a regular expression that repeats a repetition without bound, such as (a+)+,")
