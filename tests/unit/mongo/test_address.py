"""URIs: what is shown of them, and the same for one node."""

import pytest
from pymongo.uri_parser import parse_uri

from dedupstore.errors import UsageError
from dedupstore.sources.mongo.address import Address

WHOLE = (
    "mongodb://us%40er:se%2Fcr%3Aet@b:27018,a/db?replicaSet=rs%200&authSource=admin&readPreference=secondary"
    "&tls=true&tlsAllowInvalidCertificates=true"
)


def test_nothing_secret_is_shown() -> None:
    address = Address(WHOLE)
    assert address.shown == "mongodb://a:27017,b:27018/?replicaSet=rs%200"
    for text in (address.shown, repr(address), str(address)):
        assert "se" not in text.replace("replicaSet", "")
        assert "us" not in text


def test_the_order_of_hosts_does_not_matter() -> None:
    assert Address("mongodb://b,a/").shown == Address("mongodb://a:27017,b:27017").shown


@pytest.mark.parametrize("host", ["c:1", "[::1]:27019", "/tmp/mongodb-27017.sock"])
def test_one_node_keeps_user_and_tls(host: str) -> None:
    found = parse_uri(Address(WHOLE).of_node(host))
    assert (found["username"], found["password"], found["database"]) == ("us@er", "se/cr:et", "db")
    assert found["options"]["authSource"] == "admin"
    assert found["options"]["tls"] is True
    assert found["options"]["directConnection"] is True
    assert "replicaSet" not in found["options"]
    assert "readPreference" not in found["options"]
    assert len(found["nodelist"]) == 1


@pytest.mark.parametrize(
    "uri",
    ["mongodb://h", "mongodb://h/", "mongodb://h?tls=true", "mongodb://h/?tls=true", "mongodb://u:p@h:1/x"],
)
def test_one_node_of_any_form(uri: str) -> None:
    found = parse_uri(Address(uri).of_node("n:5"))
    assert found["nodelist"] == [("n", 5)]
    assert found["options"]["directConnection"] is True


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://h/",
        "mongodb://",
        "mongodb://user:sec@ret/x@h/",
        "mongodb://user:secret@h:port/",
        "mongodb://user:sec%ret@h/",
        "mongodb://user:secret@h/?replicaSet=a&directConnection=perhaps&w=sec ret",
        "mongodb://user:secret@h/?tsl=true",
        "mongodb://user:27017?secret=x@h/",
        "mongodb://user:secret@h/?sec ret=true",
        "mongodb://user:secret@h/sec ret.x",
    ],
)
def test_a_bad_uri_is_not_quoted(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        Address(uri).of_node("h")
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("query", ["tsl=true", "tls=true&directConnection=perhaps", "w=1&bogus=a:b"])
def test_an_option_that_can_not_be_is_named(query: str) -> None:
    with pytest.raises(UsageError, match=r"an option (tsl|directConnection|bogus) that is unknown"):
        Address(f"mongodb://user:secret@h/?{query}")


def test_options_are_found_whatever_their_case() -> None:
    address = Address("mongodb://h/?serverSelectionTimeoutMS=5&APPNAME=x")
    assert address.has("serverSelectionTimeoutMS")
    assert address.has("appname")
    assert not address.has("socketTimeoutMS")


def test_a_single_node_is_one_that_is_asked_for_as_such() -> None:
    assert Address("mongodb://h/?directConnection=true").single
    assert not Address("mongodb://h/").single
    assert not Address("mongodb://a,b/").single
