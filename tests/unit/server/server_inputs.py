"""What the server is tried on."""

import bson

from dedupstore.sources.bson.collection import CollectionInfo
from tests.unit.export.views import ListedView
from tests.unit.query.query_inputs import Ordered

ID_INDEX = bson.encode({"v": 2, "key": {"_id": 1}, "name": "_id_"})


def made(db: str, name: str, documents: list[bytes] | None = None, **info: object) -> Ordered:
    more = {"indexes": (ID_INDEX,), **info}
    return Ordered(CollectionInfo(db, name, **more), documents or [])  # type: ignore[arg-type]


def numbers(count: int, size: int = 10) -> list[bytes]:
    return [bson.encode({"_id": n, "n": n % 7, "text": "x" * size}) for n in range(count)]


def small_view() -> ListedView:
    view = bson.encode({"viewOn": "orders", "pipeline": [{"$match": {"n": 3}}, {"$project": {"n": 1}}]})
    odd = bson.encode({"viewOn": "orders", "pipeline": [{"$lookup": {}}]})
    french = bson.encode({"collation": {"locale": "fr"}})
    return ListedView(
        [
            made("admin", "system.version", [bson.encode({"_id": "x"})]),
            made("shop", "french", numbers(3), options=french, uuid=bytes(16)),
            made("shop", "odd", kind="view", options=odd, indexes=()),
            made("shop", "orders", numbers(1000), uuid=bytes(range(16))),
            made("shop", "threes", kind="view", options=view, indexes=()),
            made(
                "stock",
                "times",
                numbers(5),
                kind="timeseries",
                options=bson.encode({"timeseries": {"timeField": "t"}}),
            ),
        ]
    )
