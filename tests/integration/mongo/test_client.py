"""Connecting: what is found out about a server, and what is said when it does not work."""

import pytest

from dedupstore.errors import AccessError, SourceError, TargetError, UsageError
from dedupstore.ops.taillog import MongoLogServer
from dedupstore.sources.mongo.catalog import described
from dedupstore.sources.mongo.client import REPLICA_SET, STANDALONE, connect
from dedupstore.sources.mongo.failures import is_transient
from dedupstore.sources.mongo.oplog import majority_point
from tests.support import servers
from tests.support.relay import Relay

NOBODY = "mongodb://joe:secret@127.0.0.1:1/?serverSelectionTimeoutMS=200"


def test_a_replica_set_is_known(mongo: servers.Server) -> None:
    deployment = connect(mongo.uri)
    facts = deployment.node().facts
    assert facts.kind == REPLICA_SET
    assert facts.set_name
    assert facts.numbers >= (4, 4)
    assert facts.writable
    assert facts.mongod == (mongo.kind == "real")
    point = majority_point(deployment.node())
    assert point is not None
    deployment.close()
    deployment.close()


def test_the_set_is_found_from_a_member(secantus_server: servers.Server) -> None:
    deployment = connect(secantus_server.uri.replace("directConnection=true", "replicaSet=secantus"))
    assert deployment.node().facts.host in secantus_server.uri
    assert deployment.address.shown.endswith("/?replicaSet=secantus")
    deployment.close()


def test_another_set_is_not(secantus_server: servers.Server) -> None:
    uri = secantus_server.uri.replace(
        "directConnection=true", "replicaSet=other&serverSelectionTimeoutMS=300"
    )
    with pytest.raises(SourceError, match="no server answers"):
        connect(uri)


def test_a_direct_connection_to_another_set_is_refused(secantus_server: servers.Server) -> None:
    with pytest.raises(UsageError, match="of the replica set secantus and not of other: correct"):
        connect(secantus_server.uri + "&replicaSet=other")


def test_what_a_server_is_told_apart_by(mongo: servers.Server) -> None:
    deployment = connect(mongo.uri)
    found = described(deployment)
    assert MongoLogServer(deployment).options == found
    deployment.close()
    assert found["set"]
    assert found["uri"] == deployment.address.shown
    assert len(found.get("id", "")) == (32 if mongo.kind == "real" else 0)


def test_a_standalone_has_no_point(ferretdb_server: servers.Server) -> None:
    deployment = connect(ferretdb_server.uri)
    assert deployment.node().facts.kind == STANDALONE
    assert majority_point(deployment.node()) is None
    deployment.close()


@pytest.mark.parametrize("family", [SourceError, TargetError])
def test_nobody_answers(family: type[SourceError] | type[TargetError]) -> None:
    with pytest.raises(family, match=r"no server answers at mongodb://127\.0\.0\.1:1:") as caught:
        connect(NOBODY, family=family)
    assert "secret" not in str(caught.value)
    assert "joe" not in str(caught.value)


def test_a_wrong_password_is_said_to_be_one() -> None:
    with servers.secantus() as server:
        with server.client() as client:
            client["admin"].command("createUser", "joe", pwd="right", roles=["root"])
        uri = server.uri.replace("mongodb://", "mongodb://joe:wr0ng@") + "&authSource=admin"
        with pytest.raises(AccessError, match="user and password") as caught:
            connect(uri)
        assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize("options", ["directConnection=true&loadBalanced=true", "tls=true&tlsInsecure=x"])
def test_options_that_do_not_fit(options: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(f"mongodb://joe:secret@127.0.0.1:1/?{options}")
    assert "secret" not in str(caught.value)


def test_a_lost_connection_is_made_again(secantus_server: servers.Server) -> None:
    with Relay(address_of(secantus_server)) as relay:
        deployment = connect(relay.uri + "&serverSelectionTimeoutMS=500")
        node = deployment.node()
        relay.refuse = True
        relay.cut()
        with pytest.raises(SourceError) as caught:
            node.ask("admin", {"ping": 1}, "asking")
        assert is_transient(caught.value)
        relay.refuse = False
        fresh = deployment.replace(node)
        assert fresh is not node
        assert deployment.replace(node) is fresh
        assert fresh.ask("admin", {"ping": 1}, "asking")["ok"] == 1
        deployment.close()


def address_of(server: servers.Server) -> str:
    return server.uri.removeprefix("mongodb://").partition("/")[0]
