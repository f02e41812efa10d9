"""Which collections are meant, and what they are called where they go.

A pattern is ``db``, ``db.collection`` or either with ``*`` for any characters; a database's name has no
dot, so the first one separates. A renaming is ``from=to``, with as many stars on both sides: what a star
stood for on the left comes in its place on the right (`mongorestore --nsFrom, --nsTo` do the same).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dedupstore.errors import UsageError

_DB_MAX = 63
_DB_FORBIDDEN = frozenset('/\\. "$\0')


def _expression(pattern: str) -> re.Pattern[str]:
    """Return what matches ``db.collection`` for one pattern."""
    if not pattern or pattern.startswith("."):
        raise UsageError(f"{pattern!r} names no database: write db, db.collection, or with * for anything")
    db, dot, name = pattern.partition(".")
    parts = [_star(db, "[^.]*"), r"\.", _star(name, ".*") if dot else ".*"]
    return re.compile("".join(parts), re.DOTALL)


def _star(text: str, anything: str) -> str:
    return f"({anything})".join(map(re.escape, text.split("*")))


@dataclass(frozen=True, slots=True)
class Selection:
    """What is wanted: everything that fits an ``include`` (all, if there are none) and no ``exclude``."""

    include: tuple[re.Pattern[str], ...] = ()
    exclude: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> "Selection":
        """Read patterns; raises `UsageError`."""
        return cls(tuple(map(_expression, include)), tuple(map(_expression, exclude)))

    def wants(self, db: str, name: str) -> bool:
        """Say whether a collection is meant."""
        whole = f"{db}.{name}"
        if self.include and not any(one.fullmatch(whole) for one in self.include):
            return False
        return not any(one.fullmatch(whole) for one in self.exclude)


@dataclass(frozen=True, slots=True)
class _Rule:
    text: str
    """As it was given."""
    pattern: re.Pattern[str]
    pieces: tuple[str, ...]
    """What stands between the stars on the right."""


@dataclass(frozen=True, slots=True)
class Renaming:
    """Rules in the order they were given; the first that fits decides."""

    rules: tuple["_Rule", ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Renaming":
        """Read ``from=to`` rules; raises `UsageError`."""
        return cls(tuple(_rule(text) for text in texts))

    def apply(self, db: str, name: str) -> tuple[str, str]:
        """Return database and collection as they are to be called; raises `UsageError` for a bad name."""
        whole = f"{db}.{name}"
        for rule in self.rules:
            found = rule.pattern.fullmatch(whole)
            if found is not None:
                filled = [rule.pieces[0]]
                for group, piece in zip(found.groups(), rule.pieces[1:], strict=True):
                    filled += [group, piece]
                return _split("".join(filled))
        return db, name

    def unused(self, names: Iterable[tuple[str, str]]) -> list[str]:
        """Return the rules, as they were given, that fit none of these collections."""
        wholes = [f"{db}.{name}" for db, name in names]
        return [rule.text for rule in self.rules if not any(map(rule.pattern.fullmatch, wholes))]


def _rule(text: str) -> "_Rule":
    left, equals, right = text.partition("=")
    if not equals or not right:
        raise UsageError(f"{text!r} is no renaming: write from=to, as in 'shop.*=shop_copy.*'")
    if "." not in left and "." not in right:
        left, right = f"{left}.*", f"{right}.*"
    if "." not in left or "." not in right:
        raise UsageError(f"{text!r} renames a database to a collection or back: write db.name on both sides")
    if left.count("*") != right.count("*"):
        raise UsageError(f"{text!r} has unequal numbers of * on its sides: each on the left needs its place")
    return _Rule(text, _expression(left), tuple(right.split("*")))


def _split(whole: str) -> tuple[str, str]:
    db, _, name = whole.partition(".")
    if not name:
        raise UsageError(f"{whole!r} is no collection: a renaming must give db.collection")
    check_db(db)
    return db, name


def check_db(db: str) -> str:
    """Return a database's name if it can be one (and so a folder's); raises `UsageError`."""
    if not db or len(db.encode("utf-8", "surrogateescape")) > _DB_MAX or _DB_FORBIDDEN & set(db):
        raise UsageError(
            f"{db!r} can not be a database's name: at most {_DB_MAX} bytes, none of / \\ . \" $ or a space"
        )
    return db
