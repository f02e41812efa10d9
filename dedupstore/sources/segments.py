"""The bytes of a listing: stat records and names, packed so that equality is comparison of bytes.

A segment is ``u32`` count, ``u32`` how many of them are folders, count records of `RECORD_SIZE` bytes,
then the names joined by NUL; all numbers little-endian; entries sorted by name, bytewise, over the
whole folder.

A record holds what tells that an entry changed and nothing that changes by itself. Hence no access
time; no block count (some file systems allocate after the write returned); and the device only where
it differs from the folder's own (many file systems get a new number at every mount). An entry that
could not be looked at has mode 0 and its errno in place of ``rdev``.
"""

import os
import stat
import struct
from collections.abc import Iterable

from dedupstore.sources.base import Item

RECORD = struct.Struct("<6IQqqqQQ")
"""mode, nlink, uid, gid, mtime and ctime nanoseconds; inode, size, mtime and ctime seconds, rdev, dev."""
RECORD_SIZE = RECORD.size

_HEADER = struct.Struct("<II")
_MODE = struct.Struct("<I")
_MODES = struct.Struct(f"<I{RECORD_SIZE - _MODE.size}x")
_SECOND = 1_000_000_000
_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_TYPE = 0o170000


def pack_record(status: os.stat_result, dev: int) -> bytes:
    """Return the record of one entry whose folder lies on device ``dev``."""
    mode = status.st_mode
    mtime, mtime_ns = divmod(status.st_mtime_ns, _SECOND)
    ctime, ctime_ns = divmod(status.st_ctime_ns, _SECOND)
    return RECORD.pack(
        mode,
        status.st_nlink & _U32,
        status.st_uid & _U32,
        status.st_gid & _U32,
        mtime_ns,
        ctime_ns,
        status.st_ino,
        status.st_size,
        mtime,
        ctime,
        status.st_rdev & _U64 if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        0 if status.st_dev == dev else status.st_dev & _U64,
    )


def failed_record(errno: int) -> bytes:
    """Return the record of an entry that could not be looked at."""
    return RECORD.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, errno, 0)


def pack_segment(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Pack (name, record) pairs that are sorted by name."""
    names, records, folders = [], [], 0
    for name, record in entries:
        names.append(name)
        records.append(record)
        folders += stat.S_ISDIR(_MODE.unpack_from(record)[0])
    return b"".join((_HEADER.pack(len(names), folders), *records, b"\0".join(names)))


def unpack_record(name: bytes, record: bytes, dev: int) -> Item:
    """Return one item of a folder that lies on device ``dev``."""
    mode, nlink, uid, gid, mtime_ns, ctime_ns, ino, size, mtime, ctime, rdev, own = RECORD.unpack(record)
    return Item(
        name, record, mode, nlink, uid, gid, own or dev, ino, size,
        mtime * _SECOND + mtime_ns, ctime * _SECOND + ctime_ns, rdev,
    )  # fmt: skip


def unpack_segment(segment: bytes, dev: int) -> list[Item]:
    """Return the items of a segment of a folder that lies on device ``dev``."""
    count, _ = _HEADER.unpack_from(segment)
    end = _HEADER.size + count * RECORD_SIZE
    names = segment[end:].split(b"\0")
    starts = range(_HEADER.size, end, RECORD_SIZE)
    fields = RECORD.iter_unpack(memoryview(segment)[_HEADER.size : end])
    new = tuple.__new__  # what Item() does, without the call in between: this runs for every entry
    return [
        new(
            Item,
            (
                name, segment[at : at + RECORD_SIZE], mode, nlink, uid, gid, own or dev, ino, size,
                mtime * _SECOND + mtime_ns, ctime * _SECOND + ctime_ns, rdev,
            ),
        )
        for name, at, (mode, nlink, uid, gid, mtime_ns, ctime_ns, ino, size, mtime, ctime, rdev, own)
        in zip(names, starts, fields, strict=True)
    ]  # fmt: skip


def unpack_folders(segment: bytes, dev: int) -> list[Item]:
    """Return only the items that are folders."""
    count, folders = _HEADER.unpack_from(segment)
    if not folders:
        return []
    end = _HEADER.size + count * RECORD_SIZE
    names = segment[end:].split(b"\0")
    found = []
    for number, (mode,) in enumerate(_MODES.iter_unpack(memoryview(segment)[_HEADER.size : end])):
        if mode & _TYPE == stat.S_IFDIR:
            at = _HEADER.size + number * RECORD_SIZE
            found.append(unpack_record(names[number], segment[at : at + RECORD_SIZE], dev))
            if len(found) == folders:
                break
    return found


def blank(segment: bytes, names: set[bytes]) -> bytes:
    """Return the segment with the records of these names zeroed, which no real entry equals."""
    return pack_segment(
        (item.name, bytes(RECORD_SIZE) if item.name in names else item.record)
        for item in unpack_segment(segment, 0)
    )
