"""What MongoDB calls the ways in which a query can fail: its numbers and names, and the error that has them.

The names of the members are the code names that drivers compare; ``Location`` names are those of mongod for
checks that have a number only.
"""

from enum import IntEnum

from dedupstore.errors import UsageError


class Failure(IntEnum):
    """Numbers of MongoDB's errors."""

    InternalError = 1
    BadValue = 2
    FailedToParse = 9
    Unauthorized = 13
    TypeMismatch = 14
    Overflow = 15
    ProtocolError = 17
    AuthenticationFailed = 18
    IllegalOperation = 20
    NamespaceNotFound = 26
    CursorNotFound = 43
    MaxTimeMSExpired = 50
    CommandNotFound = 59
    InvalidOptions = 72
    InvalidNamespace = 73
    CommandNotSupported = 115
    ExceededMemoryLimit = 146
    CommandNotSupportedOnView = 166
    NotImplemented = 238
    QueryExceededMemoryLimitNoDiskUseAllowed = 292
    MechanismUnavailable = 334
    BSONObjectTooLarge = 10334
    InterruptedAtShutdown = 11600
    CursorInUse = 12051
    ClientDisconnect = 279
    DataCorruptionDetected = 322
    UnrecognizedField = 40415
    UnsupportedOpQueryCommand = 352
    Location15947 = 15947
    Location15955 = 15955
    Location15958 = 15958
    Location15983 = 15983
    Location16020 = 16020
    Location16410 = 16410
    Location17217 = 17217
    Location16702 = 16702
    Location17124 = 17124
    Location28811 = 28811
    Location28818 = 28818
    Location31249 = 31249
    Location31250 = 31250
    Location31253 = 31253
    Location40228 = 40228
    Location40234 = 40234
    Location40235 = 40235
    Location40237 = 40237
    Location40323 = 40323
    Location40324 = 40324
    Location40571 = 40571


class QueryError(UsageError):
    """A request that can not be answered, and MongoDB's number for why.

    Raised for what makes no sense (`Failure.BadValue` and the like) and for what is not done here
    (`Failure.NotImplemented`): an operator that is not known never counts as one that matches nothing.
    """

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message, number=int(failure), name=failure.name)
        self.failure = failure


def bad_value(message: str) -> QueryError:
    """Return the error for an argument that makes no sense."""
    return QueryError(Failure.BadValue, message)


def mismatch(message: str) -> QueryError:
    """Return the error for an argument of the wrong type."""
    return QueryError(Failure.TypeMismatch, message)


def not_done(what: str) -> QueryError:
    """Return the error for something of MongoDB's that is not done here; ``what`` names it."""
    return QueryError(
        Failure.NotImplemented,
        f"{what} is not supported by this read-only server: restore the collection to a MongoDB to use it",
    )
