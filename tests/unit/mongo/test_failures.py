"""What the driver raises, in this package's errors."""

import pytest
from pymongo import errors

from dedupstore.errors import AccessError, SourceChanged, SourceError, TargetError, UsageError
from dedupstore.sources.mongo.failures import code_of, failure, is_transient


@pytest.mark.parametrize(
    ("error", "family", "transient"),
    [
        (errors.ServerSelectionTimeoutError("x"), SourceError, True),
        (errors.NetworkTimeout("x"), SourceError, True),
        (errors.AutoReconnect("x"), SourceError, True),
        (errors.ConfigurationError("x"), UsageError, False),
        (errors.OperationFailure("x", 18), AccessError, False),
        (errors.OperationFailure("x", 13), AccessError, False),
        (errors.OperationFailure("x", 43), SourceError, True),
        (errors.OperationFailure("x", 136), SourceChanged, False),
        (errors.OperationFailure("x", 9001), SourceError, True),
        (errors.OperationFailure("x", 2), SourceError, False),
        (errors.DocumentTooLarge("x"), SourceError, False),
        (errors.PyMongoError("x"), SourceError, False),
    ],
)
def test_kinds(error: errors.PyMongoError, family: type[Exception], transient: bool) -> None:
    found = failure(error, "reading a.b", "h:1")
    assert type(found) is family
    assert is_transient(found) is transient
    assert "h:1" in found.message
    if isinstance(error, errors.OperationFailure):
        assert code_of(found) == error.code


def test_what_is_refused_names_what_is_missing() -> None:
    refused = errors.OperationFailure("x", 13, {"errmsg": "not authorized on a to execute command"})
    anonymous = errors.OperationFailure("x", 13, {"errmsg": "Command find requires authentication"})
    assert "the role backup on admin" in failure(refused, "reading a.b", "h:1").message
    assert "the role restore on admin" in failure(refused, "writing a.b", "h:1", TargetError).message
    assert "put USER:PASSWORD@ into the URI" in failure(anonymous, "reading a.b", "h:1").message


def test_a_target_is_said_to_be_one() -> None:
    assert type(failure(errors.AutoReconnect("x"), "writing a.b", "h:1", TargetError)) is TargetError


def test_what_the_driver_says_of_connections_is_not_passed_on() -> None:
    found = failure(errors.ConfigurationError("mongodb://u:secret@h"), "connecting", "h:1")
    assert "secret" not in found.message


def test_what_the_server_says_is_made_printable() -> None:
    error = errors.OperationFailure("x", 2, {"errmsg": "bad \x1b[2Jname " + "y" * 5000})
    message = failure(error, "reading a.b", "h:1").message
    assert "\x1b" not in message
    assert len(message) < 500
