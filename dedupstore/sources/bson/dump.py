"""A folder that mongodump wrote: which of its files are what, told by their names.

::

    dump/prelude.json                    versions; of one database alone it lies in the database's folder
    dump/oplog.bson                      the log, of a dump with --oplog
    dump/<db>/<name>.bson                documents
    dump/<db>/<name>.metadata.json       options and indexes; all there is of a view
    dump/<db>/$admin.system.users.bson   users of one database: no metadata

With ``--gzip`` all but ``oplog.bson`` end in ``.gz``, and all are gzip. Names: `collection.file_name`.
"""

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import (
    DATA_SUFFIX,
    METADATA_SUFFIX,
    PRELUDE,
    CollectionInfo,
    collection_name,
    parse_metadata,
)
from dedupstore.sources.bson.detect import PACKED_SUFFIX, metadata_of
from dedupstore.sources.bson.feed import feed_of, fill_up
from dedupstore.sources.bson.gunzip import MAGIC, Gunzip

METADATA_MAX = 16 * 1024 * 1024
"""Bytes; a longer file is no metadata."""


class DumpFile(NamedTuple):
    """One file of a dump, by the name that it has in an unpacked one."""

    found: bytes
    """The name that it has."""
    packed: bool
    """Whether it is gzip."""
    metadata: bytes = b""
    """Of documents: the (unpacked) name of the metadata beside them; empty if there are none."""


def dump_files(files: AbstractSet[bytes], names: AbstractSet[bytes]) -> dict[bytes, DumpFile]:
    """Return the files of one folder that are not stored as they lie there, by unpacked name.

    Those are documents with metadata, and what is packed. ``files`` are the regular ones among ``names``. A
    packed file stays as it is where anything of its unpacked name lies beside it.
    """
    found = {}
    for name in files:
        plain = name.removesuffix(PACKED_SUFFIX)
        packed = plain != name
        ours = plain == PRELUDE or plain.endswith((DATA_SUFFIX, METADATA_SUFFIX))
        if packed and (plain in names or not ours):
            continue
        metadata = metadata_of(plain)
        if not files & {metadata, metadata + PACKED_SUFFIX}:
            metadata = b""
        if packed or metadata:
            found[plain] = DumpFile(name, packed, metadata)
    return found


def is_packed(head: bytes) -> bool:
    """Tell whether a file that has no ``.gz`` in its name is gzip all the same, from its first five bytes.

    A document of exactly 0x88B1F bytes begins like gzip; then comes the type of its first value, which in
    what mongodump writes is part of a time that it leaves zero.
    """
    return head[: len(MAGIC)] == MAGIC and len(head) > 4 and head[4] not in raw.TYPE_NAMES


def info_of(metadata: bytes, data_name: bytes, db: bytes, *, packed: bool) -> CollectionInfo:
    """Return what a metadata file says of the collection in ``data_name``, in the folder called ``db``.

    Raises `SourceError`.
    """
    if packed:
        metadata = _unpacked(metadata)
    name = collection_name(data_name.removesuffix(DATA_SUFFIX)) or ""
    return parse_metadata(metadata, db.decode("utf-8", "surrogateescape"), name)


def _unpacked(data: bytes) -> bytes:
    fill, out = Gunzip(feed_of(data), "the metadata").fill, bytearray(METADATA_MAX + 1)
    size = fill_up(fill, memoryview(out))
    if size > METADATA_MAX:
        raise SourceError(f"the metadata has more than {METADATA_MAX} bytes: take the dump again")
    return bytes(out[:size])
