"""A view made of lists, for tests of what reads views."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dedupstore.errors import ObjectNotFound
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.raw import id_of
from dedupstore.sources.oplog.position import Ts


@dataclass
class Listed:
    info: CollectionInfo
    held: list[bytes] = field(default_factory=list)
    breaks_after: int | None = None
    natural: bool = False

    @property
    def count(self) -> int:
        return len(self.held)

    @property
    def size(self) -> int:
        return sum(map(len, self.held))

    def documents(self, after: bytes | None = None) -> Iterator[bytes]:
        assert after is None
        for number, document in enumerate(self.held):
            if number == self.breaks_after:
                raise ObjectNotFound("a pack is gone; run `dstore verify`")
            yield document

    def get(self, id: bytes) -> bytes | None:  # noqa: A002
        return next((one for one in self.held if id_of(one) == id), None)


@dataclass
class ListedView:
    held: Sequence[Listed]
    at: Ts | None = None

    def collections(self) -> Sequence[Listed]:
        return self.held

    def find(self, db: str, name: str) -> Listed | None:
        return next((one for one in self.held if (one.info.db, one.info.name) == (db, name)), None)

    def close(self) -> None:
        pass
