"""Records out of packs: ranges joined, opened, expanded, checked.

There is no second way to read a chunk: restore, verify, ``cat``, mount and the tree pages all come
through here. A chunk's id is computed again from what was read; a mismatch is `ChunkDamaged`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from dedupstore.errors import (
    ChunkDamaged,
    DedupstoreError,
    FormatError,
    IntegrityError,
    ObjectDamaged,
    ObjectNotFound,
)
from dedupstore.format import constants as c
from dedupstore.format.codec import Expander
from dedupstore.format.crypto import Cipher, get_cipher
from dedupstore.format.keys import EpochKeys
from dedupstore.format.pack import open_header, pack_key, read_header, record_ad
from dedupstore.ids import ChunkId, PackId, short
from dedupstore.model import ChunkKind, Record
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectReader

GAP = 64 * 1024
"""Unwanted bytes between two ranges that cost less to read than a second request."""
RANGE_MAX = 8 * 1024 * 1024
"""Longest joined range; bounds memory."""

FetchBase = Callable[[ChunkId, ChunkKind], bytes]


class RecordReader:
    """Opens records of one repository's packs.

    Threads: any; contexts and scratch are per thread. Memory: `RANGE_MAX` sealed bytes and one expanded
    record a thread, and 100 bytes for each pack whose key was derived.
    """

    def __init__(
        self,
        store: ObjectReader,
        repo_id: bytes,
        cipher: Cipher,
        keys: Callable[[int], EpochKeys],
        pack_row: Callable[[PackId], tuple[ChunkKind, int, bytes] | None],
        fetch_base: FetchBase,
    ) -> None:
        """``pack_row`` gives kind, epoch and salt of a pack that the index knows, else ``None``."""
        self._store = store
        self._repo_id = repo_id
        self._cipher = cipher
        self._keys = keys
        self._pack_row = pack_row
        self._fetch_base = fetch_base
        self._opened: dict[PackId, tuple[bytes, ChunkKind, Cipher]] = {}
        self._local = threading.local()

    def records(
        self, pack: PackId, wanted: Iterable[Record]
    ) -> Iterator[tuple[Record, bytes | DedupstoreError]]:
        """Yield each wanted record of one pack with its plaintext, or with why it can not be had.

        In order of offset. A missing or unreadable pack yields the error for every record.
        """
        ordered = sorted(wanted, key=lambda record: record.offset)
        for run in _runs(ordered):
            start, end = run[0].offset, run[-1].offset + run[-1].length
            try:
                (sealed,) = self._store.get_ranges(_key(pack), [(start, end - start)])
            except (ObjectDamaged, ObjectNotFound) as error:
                if len(run) == 1:
                    yield run[0], error
                else:  # find out which of them can still be read
                    yield from self._one_by_one(pack, run)
                continue
            with memoryview(sealed) as view:
                for record in run:
                    at = record.offset - start
                    yield record, self._open_or_error(record, view[at : at + record.length])

    def open_record(self, record: Record, sealed: memoryview | bytes) -> bytes:
        """Open and expand one record from its sealed bytes; raises `ChunkDamaged`."""
        key, kind, cipher = self._pack(record.pack)
        ad = record_ad(kind, self._repo_id, record.number, record.codec, record.plain_length, record.base)
        base = None if record.base is None else self._fetch_base(record.base, kind)  # uses the scratch, too
        scratch = self._scratch(record.length)
        try:
            size = cipher.open_into(scratch, 0, sealed, ad=ad, number=record.number, key=key)
            with memoryview(scratch) as view:
                return self._expander().expand(record.codec, view[:size], record.plain_length, base)
        except (IntegrityError, ValueError) as error:
            raise ChunkDamaged(
                f"record {record.number} of pack {short(record.pack)} at offset {record.offset} is damaged; "
                "run `dstore verify --data` to see what it hurts",
                pack=record.pack,
                offset=record.offset,
            ) from error

    def _one_by_one(
        self, pack: PackId, run: Sequence[Record]
    ) -> Iterator[tuple[Record, bytes | DedupstoreError]]:
        for record in run:
            try:
                (sealed,) = self._store.get_ranges(_key(pack), [(record.offset, record.length)])
            except (ObjectDamaged, ObjectNotFound) as error:
                yield record, error
            else:
                yield record, self._open_or_error(record, sealed)

    def _open_or_error(self, record: Record, sealed: memoryview | bytes) -> bytes | DedupstoreError:
        try:
            return self.open_record(record, sealed)
        except (IntegrityError, ObjectNotFound, FormatError) as error:
            return error

    def _pack(self, pack: PackId) -> tuple[bytes, ChunkKind, Cipher]:
        known = self._opened.get(pack)
        if known is None:
            row = self._pack_row(pack)
            if row is None:
                known = self._from_header(pack)
            else:
                kind, epoch, salt = row
                key = pack_key(self._keys(epoch), kind, self._repo_id, pack, salt)
                known = key, kind, self._cipher
            self._opened[pack] = known
        return known

    def _from_header(self, pack: PackId) -> tuple[bytes, ChunkKind, Cipher]:
        (head,) = self._store.get_ranges(_key(pack), [(0, c.PACK_HEADER_SIZE)])
        epoch = read_header(pack, head).epoch
        header, key = open_header(pack, head, self._keys(epoch), self._repo_id)
        return key, header.kind, get_cipher(header.cipher)

    def _expander(self) -> Expander:
        expander: Expander | None = getattr(self._local, "expander", None)
        if expander is None:
            expander = self._local.expander = Expander()
        return expander

    def _scratch(self, size: int) -> bytearray:
        scratch: bytearray | None = getattr(self._local, "scratch", None)
        if scratch is None or len(scratch) < size:
            scratch = self._local.scratch = bytearray(max(size, 1 << 20) * 5 // 4)
        return scratch


def _key(pack: PackId) -> ObjectKey:
    return ObjectKey(ObjectKind.PACK, pack.hex())


def _runs(ordered: Sequence[Record]) -> Iterator[list[Record]]:
    """Join neighbouring records into runs of at most `RANGE_MAX` bytes with gaps below `GAP`."""
    run: list[Record] = []
    for record in ordered:
        if run:
            last = run[-1]
            joined = record.offset + record.length - run[0].offset
            if record.offset - (last.offset + last.length) > GAP or joined > RANGE_MAX:
                yield run
                run = []
        run.append(record)
    if run:
        yield run
