"""What is damaged, by the object it lies in, and what that hurts.

Damage is kept by pack, by record, by chunk and by tree page, so that a lost pack is one finding and
not one for each of its chunks. Threads: any may add; the rest begins when adding has ended.
Memory: at most `DAMAGES_MAX` damages with `HURTS_SHOWN` places each, and about 100 bytes for
each further record or page that is damaged; further chunks are only counted.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from dedupstore.errors import ChunkDamaged, DedupstoreError, ObjectNotFound
from dedupstore.findings import Finding
from dedupstore.ids import ChunkId, PackId, TreeId, short
from dedupstore.repository.index import Place

DAMAGES_MAX = 1000
HURTS_SHOWN = 20

K = TypeVar("K")


@dataclass(slots=True, eq=False)
class Damage:
    """One damaged object, and the first places it hurts."""

    where: str
    error: DedupstoreError
    holds: bool
    """Whether it may hold something that a snapshot needs."""
    hurts: list[str] = field(default_factory=list)
    more: int = 0
    """Places beyond those listed."""

    def hurt(self, place: str) -> None:
        """Note a place that can not be restored whole because of this."""
        if len(self.hurts) < HURTS_SHOWN:
            self.hurts.append(place)
        else:
            self.more += 1

    def finding(self, *, complete: bool) -> Finding:
        """Return it for people: the error, and what it hurts. ``complete``: all places were looked for."""
        places = list(self.hurts)
        if self.more or (places and not complete):
            places.append(f"and {self.more} more" if complete else f"and at least {self.more} more")
        told = "; it hurts " + "; ".join(places) if places else ""
        if self.holds and complete and not places:
            told = "; no snapshot needs it"
        data = {**self.error.data, "hurts": tuple(self.hurts), "more": self.more}
        error = type(self.error)(self.error.message + told, **data)
        error.__cause__ = self.error
        return Finding(self.where, error)


class Register:
    """All damage that one run has found."""

    def __init__(self, name_of: Callable[[int], PackId]) -> None:
        """``name_of`` gives the pack that a place in the index means by its number."""
        self.packs: dict[PackId, Damage] = {}
        """Packs in which nothing can be relied on."""
        self.records: dict[tuple[PackId, int], Damage] = {}
        self.chunks: dict[ChunkId, Damage] = {}
        self.pages: dict[TreeId, Damage] = {}
        self._listed: list[Damage] = []
        self._beyond = 0
        self._unlisted: dict[PackId, Damage] = {}
        self._name_of = name_of
        self._rest = Damage("further objects", ChunkDamaged(""), holds=True)
        self._lock = threading.Lock()

    @property
    def hurting(self) -> bool:
        """Whether anything that a snapshot may need is damaged."""
        return bool(self.packs or self.records or self.chunks or self.pages)

    def add_object(self, where: str, error: DedupstoreError) -> None:
        """Note damage to an object that holds no chunks."""
        self._add({}, None, where, error, holds=False)

    def add_pack(self, name: PackId, error: DedupstoreError) -> None:
        """Note that a pack is missing or can not be relied on at all."""
        self._add(self.packs, name, f"packs/{name.hex()}", error)

    def add_shell(self, name: PackId, error: DedupstoreError) -> None:
        """Note damage to a pack outside its records, which may all be well."""
        self._add({}, None, f"packs/{name.hex()}", error, holds=False)

    def add_unlisted(self, name: PackId) -> None:
        """Note that snapshots need a pack that no index segment lists."""
        error = ObjectNotFound(
            f"no index segment lists pack {short(name)} although snapshots need it; nothing in it is lost: "
            "`dstore cache rebuild --from-packs` finds it",
            pack=name,
        )
        self._add(self._unlisted, name, f"packs/{name.hex()}", error, holds=False)

    def add_record(self, name: PackId, record: int, error: DedupstoreError) -> None:
        """Note that one record of a pack does not open."""
        self._add(self.records, (name, record), f"packs/{name.hex()} record {record}", error)

    def add_chunk(self, chunk: ChunkId, error: DedupstoreError) -> None:
        """Note that a chunk is nowhere, or is not what its id says."""
        self._add(self.chunks, chunk, f"chunk {short(chunk)}", error)

    def add_page(self, page: TreeId, place: Place | None, error: DedupstoreError) -> None:
        """Note that a tree page does not load, unless the pack or record it lies in is blamed already."""
        blamed = list(self.blame([page], [place])) if place is not None else []
        if blamed:
            with self._lock:
                self.pages.setdefault(page, blamed[0])
        else:
            self._add(self.pages, page, f"tree page {short(page)}", error)

    def blame(self, ids: Iterable[ChunkId], places: Iterable[Place | None]) -> Iterator[Damage]:
        """Yield the damage that each of these chunks suffers from, given their places in the index."""
        for chunk, place in zip(ids, places, strict=True):
            damage = self.chunks.get(chunk)
            if damage is None and place is not None:
                pack = self._name_of(place[0])
                damage = self.packs.get(pack) or self.records.get((pack, place[1]))
            elif damage is None:
                damage = self._rest
            if damage is not None:
                yield damage

    def findings(self, *, complete: bool) -> Iterator[Finding]:
        """Yield everything found, once it is known what each hurts."""
        for damage in self._listed:
            yield damage.finding(complete=complete)
        if self._beyond:
            self._rest.error = ChunkDamaged(
                f"{self._beyond} more objects are damaged than are listed: repair those, then verify again"
            )
            yield self._rest.finding(complete=complete)

    def _add(
        self, table: dict[K, Damage], key: K, where: str, error: DedupstoreError, *, holds: bool = True
    ) -> None:
        with self._lock:
            if key in table:
                return
            _forget_frames(error)
            if len(self._listed) < DAMAGES_MAX:
                table[key] = Damage(where, error, holds)
                self._listed.append(table[key])
                return
            self._beyond += 1
            if table is not self.chunks:
                table[key] = self._rest


def _forget_frames(error: BaseException | None) -> None:
    """Cut an error that is kept from the frames it went through.

    They hold whole packs and views of them; and a cycle of error, frame and a view that C code has a
    pointer into is something that CPython's collector can not take apart (3.11 crashes).
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def no_place(chunk: ChunkId) -> ObjectNotFound:
    """Return the error for a chunk that snapshots need and no index segment lists."""
    return ObjectNotFound(
        f"no pack is known to hold chunk {short(chunk)}: "
        "`dstore cache rebuild --from-packs` looks into the packs themselves",
        chunk=chunk,
    )
