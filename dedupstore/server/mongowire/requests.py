"""Commands as they are asked: a name, a database, arguments, each looked at for its type.

An argument that a command does not know is refused, since it would change the answer; those that every
command has are dealt with here.
"""

from dataclasses import dataclass
from typing import Final

from dedupstore.query.failures import Failure, QueryError, bad_value, mismatch
from dedupstore.query.values import (
    NUMBERS,
    Value,
    document_value,
    fields,
    is_true,
    items,
    kind_name,
    nothing,
    number_of,
    whole_number,
)
from dedupstore.sources.bson import raw

_GENERAL: Final = frozenset(
    b"$db lsid $clusterTime $readPreference readConcern writeConcern maxTimeMS comment apiVersion apiStrict "
    b"apiDeprecationErrors $configTime $audit $client rawData serialization".split()
)
_TRANSACTION: Final = (b"txnNumber", b"autocommit", b"startTransaction")
_LEVELS: Final = (b"local", b"available", b"majority", b"linearizable", b"snapshot")


@dataclass(frozen=True, slots=True)
class Request:
    """One command."""

    name: str
    db: str
    given: dict[bytes, Value]
    """All arguments by name, the command's own value among them."""

    @classmethod
    def of(cls, body: bytes, database: str = "") -> "Request":
        """Read a command. Raises `QueryError`."""
        found = fields(document_value(body))
        if not found:
            raise bad_value("a command has no name")
        given = dict(found)
        if len(given) != len(found):
            raise bad_value("a command has an argument twice")
        db = given.get(b"$db", b"")
        if db and db[0] != raw.STRING:
            raise mismatch("$db must be a string")
        named = raw.text_of(db[1:]).decode("utf-8", "surrogateescape") if db else database
        if not named:
            raise QueryError(Failure.Location40571, "OP_MSG requests require a $db argument")
        if not _is_text(named):
            raise QueryError(Failure.InvalidNamespace, "a database's name must be UTF-8")
        return cls(found[0][0].decode("utf-8", "backslashreplace"), named, given)

    @property
    def own(self) -> Value:
        """The value that stands beside the command's name."""
        return next(iter(self.given.values()))

    def check(self, known: str) -> None:
        """Refuse arguments but these (names with blanks between) and the general ones."""
        for name in _TRANSACTION:
            if name in self.given:
                raise QueryError(
                    Failure.IllegalOperation,
                    "Transaction numbers are only allowed on a replica set member or mongos",
                )
        names = {self.name.encode("utf-8", "surrogateescape"), *known.encode().split()}
        for name in self.given.keys() - names - _GENERAL:
            shown = name.decode("utf-8", "backslashreplace")
            raise QueryError(
                Failure.UnrecognizedField, f"BSON field '{self.name}.{shown}' is an unknown field here."
            )
        self._check_concern()

    def _check_concern(self) -> None:
        """Let any level pass, since nothing ever changes; but no other moment than the one that is served."""
        for name, value in fields(document_value(self.document(b"readConcern"))):
            if name == b"level":
                if value[0] != raw.STRING or raw.text_of(value[1:]) not in _LEVELS:
                    raise QueryError(Failure.FailedToParse, "the readConcern level is not known")
            elif name != b"provenance":
                raise QueryError(
                    Failure.NotImplemented,
                    f"readConcern with {name.decode('utf-8', 'backslashreplace')} is not supported by this "
                    "read-only server: it serves one moment; choose it by --at when it is started",
                )

    @property
    def max_time(self) -> float | None:
        """Seconds that it may take."""
        milliseconds = self.number(b"maxTimeMS", 0)
        return milliseconds / 1000 if milliseconds > 0 else None

    def text(self, name: bytes) -> str:
        """Return an argument that must be a string and be there."""
        value = self.given.get(name, b"")
        if not value or value[0] != raw.STRING:
            raise mismatch(self._wrong(name, value, "string"))
        return raw.text_of(value[1:]).decode("utf-8", "surrogateescape")

    @property
    def collection(self) -> str:
        """The collection that the command's own value names."""
        name = next(iter(self.given))
        found = self.text(name) if self.own[0] == raw.STRING else ""
        if not found or "\0" in found or not _is_text(found):
            raise QueryError(Failure.InvalidNamespace, f"{self.name} needs a collection's name")
        return found

    def number(self, name: bytes, default: int) -> int:
        """Return a whole number that is not negative."""
        value = self.given.get(name, b"")
        if nothing(value):
            return default
        found = whole_number(value) if value[0] in NUMBERS else None
        if found is None:
            raise mismatch(self._wrong(name, value, "whole number"))
        if found < 0 or found >= 1 << 63:
            raise bad_value(f"BSON field '{self._field(name)}' must be >= 0, not {number_of(value)}")
        return found

    def flag(self, name: bytes) -> bool:
        """Return a truth value, or a number for one; false if it is not there."""
        value = self.given.get(name, b"")
        if nothing(value):
            return False
        if value[0] != raw.BOOL and value[0] not in NUMBERS:
            raise mismatch(self._wrong(name, value, "bool"))
        return is_true(value)

    def document(self, name: bytes) -> bytes:
        """Return a document; an empty one if it is not there."""
        value = self.given.get(name, b"")
        if nothing(value):
            return raw.EMPTY
        if value[0] != raw.OBJECT:
            raise mismatch(self._wrong(name, value, "object"))
        return value[1:]

    def array(self, name: bytes) -> list[Value]:
        """Return the values of an array that must be there."""
        value = self.given.get(name, b"")
        if not value or value[0] != raw.ARRAY:
            raise mismatch(self._wrong(name, value, "array"))
        return items(value)

    def _field(self, name: bytes) -> str:
        return f"{self.name}.{name.decode('utf-8', 'backslashreplace')}"

    def _wrong(self, name: bytes, value: Value, wanted: str) -> str:
        return f"BSON field '{self._field(name)}' is the wrong type '{kind_name(value)}', expected '{wanted}'"


def _is_text(name: str) -> bool:
    """Whether a name may stand in an answer: with bytes that are no UTF-8 no driver would read that."""
    return not any("\ud800" <= char <= "\udfff" for char in name)
