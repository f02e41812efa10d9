"""Documents, and queries put to them without a server."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import bson

from dedupstore.query.filters import parse_filter
from dedupstore.query.finding import found, parse_find, piped
from dedupstore.query.stages import parse_pipeline
from dedupstore.query.targets import Target
from dedupstore.query.values import fields, items
from dedupstore.query.work import QUERY_MEMORY, Pool, Work
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.bson.raw import id_of
from tests.unit.export.views import Listed

Doc = Mapping[str, Any]


class Ordered(Listed):
    """A collection in order of ``_id`` that counts what is read of it."""

    read = 0

    def documents(self, after: bytes | None = None) -> Iterator[bytes]:
        key = b"" if after is None else sort_key(after)
        for document in self.held:
            if sort_key(id_of(document)) > key or after is None:
                self.read += 1
                yield document

    def get(self, id: bytes) -> bytes | None:  # noqa: A002
        self.read += 1
        return next((one for one in self.held if sort_key(id_of(one)) == sort_key(id)), None)


def collection(documents: Sequence[Doc], **more: Any) -> Ordered:
    held = sorted(map(bson.encode, documents), key=lambda one: sort_key(id_of(one)))
    return Ordered(CollectionInfo("db", "c"), held, **more)


def work(memory: int = QUERY_MEMORY, pool: Pool | None = None) -> Work:
    return Work(pool or Pool(), os.urandom, lambda: None, memory)


def matches(query: Doc, document: Doc) -> bool:
    return parse_filter(bson.encode(query)).test(bson.encode(document))


def find(held: Ordered, **given: Any) -> list[dict[str, Any]]:
    arguments = {
        name.encode(): value for name, value in _values(given).items() if name not in {"skip", "limit"}
    }
    asked = parse_find(arguments)
    asked = type(asked)(
        asked.filter,
        asked.order,
        asked.backwards,
        asked.projection,
        given.get("skip", 0),
        given.get("limit"),
        asked.bounds,
    )
    return [bson.decode(document) for document in found(Target(held), asked, work())]


def aggregate(held: Ordered, *stages: Doc, memory: int = QUERY_MEMORY) -> list[dict[str, Any]]:
    array = items(_values({"pipeline": list(stages)})["pipeline"])
    return [bson.decode(document) for document in piped(Target(held), parse_pipeline(array), work(memory))]


def _values(given: Doc) -> dict[str, bytes]:
    return {name.decode(): value for name, value in fields(b"\x03" + bson.encode(given))}
