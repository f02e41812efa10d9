import gzip
import io
import os
import random
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import SourceChanged, SourceError, TargetError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.archive import Archive
from dedupstore.sources.bson.archiveout import ArchiveWriter
from dedupstore.sources.bson.crc64 import crc64
from dedupstore.sources.bson.feed import Fill
from dedupstore.sources.bson.prelude import Entry, Namespace, Prelude
from tests.support.dumps import archive, numbered, numbers, prelude_of, small

A, B, C = Namespace("db", "a"), Namespace("db", "b"), Namespace("", "oplog")
PRELUDE = Prelude((Entry(A, b"{}", 7, "collection"), Entry(B), Entry(C)), "8.0.4", "100.16.1")


@contextmanager
def opened(data: bytes) -> Iterator[Archive]:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        file.seek(0)
        with closing(Archive(file.fileno(), "the archive")) as found:
            yield found


def drain(fill: Fill, window: int = 777) -> bytes:
    view, found = memoryview(bytearray(window)), bytearray()
    while size := fill(view):
        found += view[:size]
    return bytes(found)


def read(data: bytes) -> dict[Namespace, bytes]:
    with opened(data) as found:
        return {namespace: drain(found.feed(namespace)) for namespace in found.bodies()}


def write(pieces: list[tuple[Namespace, bytes]], prelude: Prelude = PRELUDE) -> bytes:
    out = io.BytesIO()
    writer = ArchiveWriter(out, prelude)
    for namespace, documents in pieces:
        writer.write(namespace, documents)
    writer.finish()
    return out.getvalue()


def test_the_bytes_are_those_of_the_format() -> None:
    def document(*fields: bytes) -> bytes:
        body = b"".join(fields)
        return struct.pack("<i", len(body) + 5) + body + b"\0"

    def text(name: str, value: str) -> bytes:
        return b"\x02" + name.encode() + b"\0" + struct.pack("<i", len(value) + 1) + value.encode() + b"\0"

    def number(name: str, value: int) -> bytes:
        return b"\x10" + name.encode() + b"\0" + struct.pack("<i", value)

    def header(collection: str, *, ends: bool, crc: int = 0) -> bytes:
        return document(
            text("db", "d"),
            text("collection", collection),
            b"\x08EOF\0" + bytes([ends]),
            b"\x12CRC\0" + struct.pack("<Q", crc),
        )

    one = document(number("_id", 1))
    expected = [
        b"\x6d\xe2\x99\x81",
        document(
            number("concurrent_collections", 4),
            text("version", "0.1"),
            text("server_version", "8.0.4"),
            text("tool_version", "t"),
        ),
        document(
            text("db", "d"),
            text("collection", "c"),
            text("metadata", "{}"),
            number("size", 3),
            text("type", ""),
        ),
        b"\xff\xff\xff\xff",
        header("c", ends=False),
        one,
        b"\xff\xff\xff\xff",
        header("c", ends=True, crc=crc64(one)),
        b"\xff\xff\xff\xff",
    ]
    namespace = Namespace("d", "c")
    data = write([(namespace, one)], Prelude((Entry(namespace, b"{}", 3),), "8.0.4", "t"))
    assert data == b"".join(expected)


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 4)), max_size=12), st.booleans())
def test_what_is_written_in_any_turns_is_read_back(turns: list[tuple[Namespace, int]], packed: bool) -> None:
    rng = random.Random(1)
    pieces = [
        (namespace, b"".join(numbered(rng.randrange(99)) for _ in range(count))) for namespace, count in turns
    ]
    data = write(pieces)
    expected = {
        each: b"".join(piece for namespace, piece in pieces if namespace == each) for each in (A, B, C)
    }
    assert read(gzip.compress(data) if packed else data) == expected


def test_the_prelude_comes_back() -> None:
    with opened(write([])) as found:
        assert found.prelude == PRELUDE
        assert {each.documents for each in found.bodies().values()} == {0}


@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_is_read_once(packed: bool) -> None:
    data = archive(small(), packed=packed)
    out, into = os.pipe()

    def feed() -> None:
        with open(into, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with closing(Archive(out, "the pipe")) as found:
        bodies = {namespace: drain(found.feed(namespace)) for namespace in found.bodies()}
        again = {namespace: drain(found.feed(namespace)) for namespace in found.bodies()}
    thread.join()
    os.close(out)
    assert bodies == again == read(data)


def test_a_file_is_read_from_where_it_stands() -> None:
    data = write([(A, numbered(1))])
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"something else" + data)
        file.seek(len(b"something else"))
        with closing(Archive(file.fileno(), "the archive")) as found:
            assert drain(found.feed(A)) == numbered(1)


def test_a_time_series_stands_under_its_buckets_on_older_servers() -> None:
    entry = Entry(Namespace("db", "t"), b"{}", 0, "timeseries")
    for version, name in [
        ("8.2.11", "system.buckets.t"),
        ("8.3.0", "t"),
        ("5.0", "system.buckets.t"),
        ("10.0", "t"),
    ]:
        prelude = Prelude((entry,), version, "t")
        assert prelude.data_of(entry) == Namespace("db", name)
        assert read(write([(prelude.data_of(entry), numbered(1))], prelude)) == {
            Namespace("db", name): numbered(1)
        }


LITTLE = write([(A, numbered(1)), (B, numbered(2)), (A, numbered(3))])


def test_what_is_cut_short_is_noticed() -> None:
    for cut in range(0, len(LITTLE), 3):
        with pytest.raises(SourceError, match="the archive"):
            read(LITTLE[:cut])


def test_a_flipped_bit_behind_the_prelude_is_noticed() -> None:
    start = LITTLE.index(b"\xff\xff\xff\xff") + 4
    for place in range(start, len(LITTLE)):
        data = bytearray(LITTLE)
        data[place] ^= 1 << place % 8
        with pytest.raises(SourceError, match=r"the archive.*byte \d+"):
            read(bytes(data))


@given(st.binary(max_size=60), st.integers(0, len(LITTLE)), st.integers(0, 60))
def test_any_bytes_in_between_are_an_error_and_nothing_worse(noise: bytes, place: int, less: int) -> None:
    data = LITTLE[:place] + noise + LITTLE[place + less :]
    try:
        found = read(data)
    except SourceError:
        return
    assert found == read(LITTLE)


def test_a_wrong_checksum_names_the_namespace() -> None:
    data = LITTLE.replace(struct.pack("<Q", crc64(numbered(2))), struct.pack("<Q", crc64(numbered(2)) ^ 1))
    with pytest.raises(SourceError, match=r"db\.b has the CRC"):
        read(data)


@pytest.mark.parametrize(
    ("where", "what", "instead"),
    [
        (
            "a namespace that is not listed",
            b"\x02collection\0\x02\0\0\0b\0\x08",
            b"\x02collection\0\x02\0\0\0x\0\x08",
        ),
        ("another format version", b"0.1\0", b"0.2\0"),
        ("a field too many", b"\x08EOF\0\0", b"\x08EO\0\0"),
        ("a type that is unknown", b"collection\0\0", b"collectios\0\0"),
    ],
)
def test_what_is_not_known_is_refused(where: str, what: bytes, instead: bytes) -> None:
    assert what in LITTLE, where
    with pytest.raises(SourceError):
        read(LITTLE.replace(what, instead))


def test_fields_that_old_tools_leave_out() -> None:
    entry = raw.document(
        [
            (b"db", raw.STRING, raw.string("db")),
            (b"collection", raw.STRING, raw.string("a")),
            (b"metadata", raw.STRING, raw.string("{}")),
        ]
    )
    whole = write([(A, numbered(1))], Prelude((Entry(A, b"{}"),), "3.2.0", "t"))
    start = whole.index(b"\xff\xff\xff\xff")
    (header,) = struct.unpack_from("<i", whole, 4)
    old = whole[: 4 + header] + entry + whole[start:]
    assert read(old) == {A: numbered(1)}


@pytest.mark.parametrize(
    "data", [b"", b"\x6d", b"plain text", b"\x1f\x8b\x08", bytes(100), gzip.compress(b"text", mtime=0)]
)
def test_what_is_no_archive_says_so(data: bytes) -> None:
    with pytest.raises(SourceError, match="the archive"):
        read(data)


def test_a_namespace_twice_in_the_list_is_refused() -> None:
    data = io.BytesIO()
    writer = ArchiveWriter(data, Prelude((Entry(A), Entry(A)), "8.0.4", "t"))
    writer.finish()
    with pytest.raises(SourceError, match="twice"):
        read(data.getvalue())


def test_an_archive_that_changes_between_the_two_readings_is_noticed() -> None:
    data = write([(A, b"".join(numbers(100)))])
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        file.seek(0)
        with closing(Archive(file.fileno(), "the archive")) as found:
            found.bodies()
            place = data.index(numbered(50)) + 40
            os.pwrite(file.fileno(), bytes([data[place] ^ 1]), place)
            with pytest.raises(SourceChanged):
                drain(found.feed(A))
            os.ftruncate(file.fileno(), len(data) // 2)
            with pytest.raises(SourceChanged):
                drain(found.feed(A))


def test_a_document_as_large_as_there_are_and_one_larger() -> None:
    room = raw.DOCUMENT_MAX - len(numbered(1, 0))
    assert read(write([(A, numbered(1, room))]))[A] == numbered(1, room)
    with pytest.raises(TargetError, match=r"db\.a"):
        write([(A, numbered(1, room + 1))])


def test_the_writer_refuses_what_a_reader_would() -> None:
    writer = ArchiveWriter(io.BytesIO(), PRELUDE)
    with pytest.raises(TargetError):
        writer.write(Namespace("db", "other"), numbered(1))
    with pytest.raises(TargetError):
        writer.write(A, numbered(1)[:-1])
    writer.end(A)
    with pytest.raises(TargetError):
        writer.write(A, numbered(1))
    narrow = ArchiveWriter(io.BytesIO(), Prelude(PRELUDE.entries, "8.0.4", "t", concurrent=1))
    narrow.write(A, numbered(1))
    with pytest.raises(TargetError):
        narrow.write(B, numbered(1))


def test_a_dump_of_all_kinds() -> None:
    dump = small()
    prelude = prelude_of(dump)
    found = read(archive(dump, turn=33))
    for entry, each in zip(prelude.entries, dump.collections, strict=False):
        assert found[prelude.data_of(entry)] == each.data
    assert found[C] == b"".join(dump.oplog)
