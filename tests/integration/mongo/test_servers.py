"""The servers that the other tests here stand on: they start, answer, and are gone afterwards."""

import os

import pymongo
import pytest

from tests.support import servers


def test_a_server_answers_and_is_gone_afterwards() -> None:
    with servers.secantus() as server:
        with server.client() as client:
            client["d"]["c"].insert_one({"_id": 1})
            assert client["d"]["c"].count_documents({}) == 1
        assert server.log is not None
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    assert not server.log.exists()


def test_the_second_opinion_answers(ferretdb_server: servers.Server) -> None:
    with ferretdb_server.client() as client:
        client["d"]["c"].insert_one({"_id": 1})
        assert client["d"]["c"].find_one() == {"_id": 1}


def test_a_database_of_ones_own(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        assert client[database].list_collection_names() == []
        client[database]["c"].insert_one({"_id": 1})
    assert isinstance(pymongo.version, str)
