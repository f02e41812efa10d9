import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dedupstore.sources.base import Item
from dedupstore.sources.segments import (
    RECORD,
    RECORD_SIZE,
    blank,
    failed_record,
    pack_record,
    pack_segment,
    unpack_folders,
    unpack_record,
    unpack_segment,
)

u32 = st.integers(0, 2**32 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
u64 = st.integers(0, 2**64 - 1)
nanoseconds = st.integers(0, 999_999_999)
records = st.builds(RECORD.pack, u32, u32, u32, u32, nanoseconds, nanoseconds, u64, i64, i64, i64, u64, u64)
names = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name and b"/" not in name)
entries = st.dictionaries(names, records, min_size=1, max_size=20).map(lambda d: sorted(d.items()))


@given(entries, u64)
def test_a_segment_comes_apart_as_it_was_put_together(pairs: list[tuple[bytes, bytes]], dev: int) -> None:
    segment = pack_segment(pairs)
    items = unpack_segment(segment, dev)
    assert [(item.name, item.record) for item in items] == pairs
    assert items == [unpack_record(name, record, dev) for name, record in pairs]
    assert unpack_folders(segment, dev) == [item for item in items if stat.S_ISDIR(item.mode)]


@given(entries)
def test_blanking_changes_only_the_records_named(pairs: list[tuple[bytes, bytes]]) -> None:
    chosen = {name for name, _ in pairs[::2]}
    items = unpack_segment(blank(pack_segment(pairs), chosen), 0)
    assert [item.name for item in items] == [name for name, _ in pairs]
    for item, (_, record) in zip(items, pairs, strict=True):
        assert item.record == (bytes(RECORD_SIZE) if item.name in chosen else record)


def test_an_item_says_what_stat_says(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    os.utime(path, ns=(1, -1_500_000_001))
    status = os.stat(path)
    item = unpack_record(b"file", pack_record(status, status.st_dev), status.st_dev)
    assert item == Item(
        b"file", item.record, status.st_mode, 1, status.st_uid, status.st_gid, status.st_dev, status.st_ino,
        1000, -1_500_000_001, status.st_ctime_ns, 0,
    )  # fmt: skip


def test_a_record_does_not_depend_on_the_number_of_the_folders_own_device(tmp_path: Path) -> None:
    status = os.stat(tmp_path)
    same, other = pack_record(status, status.st_dev), pack_record(status, status.st_dev + 1)
    assert unpack_record(b"n", same, 77).dev == 77
    assert unpack_record(b"n", other, 77).dev == status.st_dev


def test_an_entry_that_could_not_be_looked_at_has_no_mode() -> None:
    item = unpack_record(b"n", failed_record(13), 1)
    assert (item.mode, item.rdev) == (0, 13)
    assert failed_record(13) != bytes(RECORD_SIZE)
