"""A reader written from FORMAT.md, section 13, with none of the package's code: the page must suffice.

The repository that it reads is made with the package.
"""

import base64
import mmap
import struct
from collections.abc import Iterator
from typing import Any

import lz4.block
import msgspec
import pytest
import zstandard
from blake3 import blake3
from nacl import bindings

from dedupstore.format import constants as c
from dedupstore.format.chunklist import ListPage, encode_list_page, pack_entries, pack_refs
from dedupstore.format.config import Epoch, encode_config
from dedupstore.format.crypto import chunk_id, get_cipher
from dedupstore.format.envelope import seal_object
from dedupstore.format.keys import (
    Argon2Cost,
    EpochKeys,
    KeyFile,
    Passphrase,
    derive_epoch,
    encode_slot,
    format_key_file,
)
from dedupstore.format.pack import PackBuilder
from dedupstore.format.snapshot import encode_snapshot, snapshot_id
from dedupstore.format.tree import Page, PageRef, encode_page
from dedupstore.ids import HOLE, ChunkId, PackId, TreeId
from dedupstore.model import ChunkKind, Member, Members, Node, Summary
from tests.unit.format import cases

PASSPHRASE = b"open sesame"
KEY_FILE = KeyFile(bytes(range(7, 39)), cases.REPO)
SECRET = bytes(range(1, 33))


# ---- the reader -----------------------------------------------------------------------------------


class Reader:
    """Sections 13.1 to 13.8, in order."""

    def __init__(self, store: dict[str, bytes], *, passphrase: bytes = b"", key_file: str = "") -> None:
        self.store = store
        config = store["config"]
        magic, version, _, _, self.repo, length = struct.unpack_from("<8sHBB16sI", config)
        assert (magic, version) == (b"dstconf\x01", 1)
        clear = config[: 32 + length]
        assert msgspec.msgpack.decode(clear[32:]) == []
        (root,) = self.root_keys(passphrase, key_file)
        config_key = derived("dedupstore 2026-11 v1 config", root)
        payload = self.envelope(1, config[len(clear) :], config_key, plain(clear))
        assert payload[0] == 1
        self.epochs = {epoch[0]: epoch[1] for epoch in msgspec.msgpack.decode(payload[1:])[7]}
        self.places: dict[bytes, tuple[str, int, int, int]] = {}
        for name in store:
            if name.startswith("packs/"):
                self.directory(name)

    def root_keys(self, passphrase: bytes, key_file: str) -> Iterator[bytes]:
        for name, slot in self.store.items():
            if not name.startswith("keys/"):
                continue
            assert slot[-32:] == plain(slot[:-32])
            magic, version, kind, cipher, repo, length = struct.unpack_from("<8sHBB16sI", slot)
            assert (magic, version, repo) == (b"dstslot\x01", 1, self.repo)
            _, _, salt, memory, passes = msgspec.msgpack.decode(slot[32 : 32 + length])[:5]
            if kind == 1:
                wrapping = bindings.crypto_pwhash_alg(32, passphrase, salt, passes, memory, 2)
            else:
                raw = base64.b64decode(key_file.split()[3]) if key_file else bytes(32)
                wrapping = derived("dedupstore 2026-11 v1 key file wrapping", raw)
            key = keyed(wrapping, b"dstore slot v1" + salt + repo)
            end = 32 + length + 32
            if slot[end - 32 : end] == keyed(key, b"dstore commitment v1"):
                yield opened(cipher, slot[end:-32], slot[:end], 0, key)

    def envelope(self, kind: int, data: bytes, key: bytes, name: bytes) -> bytes:
        magic, version, found, cipher, _, salt, commitment = struct.unpack_from("<4sHBBI32s32s", data)
        assert (magic, version, found) == (b"dsto", 1, kind)
        own = keyed(key, b"dstore object v1" + salt + bytes([kind]) + self.repo + name)
        assert commitment == keyed(own, b"dstore commitment v1")
        body = opened(cipher, data[76:], data[:76] + self.repo + name, 0, own)
        (length,) = struct.unpack_from("<I", body)
        return body[4 : 4 + length]

    def pack_key(self, name: str) -> tuple[int, int, bytes]:
        data = self.store[name]
        magic, version, kind, cipher, epoch, salt, commitment, wrap, _ = struct.unpack_from(
            "<8sHBBI32s32sB79s", data
        )
        assert (magic, version, wrap) == (b"dstpack\x01", 1, 0)
        context = {1: "dedupstore 2026-11 v1 pack data", 2: "dedupstore 2026-11 v1 pack tree"}[kind]
        own = bytes.fromhex(name.removeprefix("packs/"))
        parent = derived(context, self.epochs[epoch])
        key = keyed(parent, b"dstore pack v1" + salt + own + bytes([kind]) + self.repo)
        assert commitment == keyed(key, b"dstore commitment v1")
        return kind, cipher, key

    def ad(self, kind: int, number: int, codec: int, length: int, base: bytes | None) -> bytes:
        return struct.pack("<HB16sIBI32s", 1, kind, self.repo, number, codec, length, base or bytes(32))

    def directory(self, name: str) -> None:
        data = self.store[name]
        length, _, digest = struct.unpack("<I12s32s", data[-48:])
        assert digest == plain(data[:-32])
        kind, cipher, key = self.pack_key(name)
        sealed = data[-48 - length : -48]
        number = 0xFFFFFFFF
        tag = {1: 32, 2: 16}[cipher]
        body = opened(cipher, sealed, self.ad(kind, number, 0, length - tag, None), number, key)
        (length,) = struct.unpack_from("<I", body)
        version = body[4]
        (rows,) = msgspec.msgpack.decode(body[5 : 4 + length])
        assert version == 1
        self.rows = getattr(self, "rows", {}) | {name: rows}
        for record, row in enumerate(rows):
            start = 0
            for chunk, size in struct.iter_unpack("<32sI", row[4]):
                self.places[chunk] = (name, record, start, size)
                start += size

    def chunk(self, wanted: bytes) -> bytes:
        name, number, start, size = self.places[wanted]
        kind, cipher, key = self.pack_key(name)
        rows = self.rows[name]
        offset = 160 + sum(row[0] for row in rows[:number])
        length, codec, plain_length, base, _ = rows[number]
        ad = self.ad(kind, number, codec, plain_length, base)
        packed = opened(cipher, self.store[name][offset : offset + length], ad, number, key)
        data = expanded(codec, packed, plain_length, None if base is None else self.chunk(base))
        found = data[start : start + size]
        context = f"dedupstore 2026-11 v1 chunk id {'data' if kind == 1 else 'tree'}"
        assert keyed(derived(context, self.epochs[1]), found) == wanted
        return found

    def snapshots(self) -> Iterator[Any]:
        for name, data in self.store.items():
            if name.startswith("snapshots/"):
                assert plain(data).hex() == name.removeprefix("snapshots/")
                (epoch,) = struct.unpack_from("<I", data, 8)
                meta = derived("dedupstore 2026-11 v1 meta objects", self.epochs[epoch])
                payload = self.envelope(3, data, meta, b"")
                assert payload[0] == 1
                yield msgspec.msgpack.decode(payload[1:])

    def files(self, page: bytes, above: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        data = self.chunk(page)
        assert data[0] == 1
        _, entries = msgspec.msgpack.decode(data[2:])
        for entry in entries:
            if data[1]:
                yield from self.files(entry[1], above)
            elif entry[1] == 2:
                yield from self.files(entry[9], above + entry[0] + b"/")
            elif entry[1] == 1:
                yield above + entry[0], self.content(entry[7], entry[8])

    def content(self, content: bytes, depth: int) -> bytes:
        if depth:
            page = self.chunk(content)
            magic, version, level, count = struct.unpack_from("<4sBB2xI", page)
            assert (magic, level) == (b"dstl", depth - 1)
            end = 12 + (40 if level else 36) * count
            if version == 2:
                assert len(page) == end + count + sum(page[end : end + count])
            else:
                assert (version, len(page)) == (1, end)
            if level:
                return b"".join(self.content(i, level) for i, _ in struct.iter_unpack("<32sQ", page[12:end]))
            content = page[12:end]
        parts = struct.iter_unpack("<32sI", content)
        return b"".join(self.chunk(i) if i != bytes(32) else bytes(length) for i, length in parts)


def plain(data: bytes) -> bytes:
    return blake3(data).digest()


def keyed(key: bytes, data: bytes) -> bytes:
    return blake3(data, key=key).digest()


def derived(context: str, key: bytes) -> bytes:
    return blake3(key, derive_key_context=context).digest()


def opened(cipher: int, sealed: bytes, ad: bytes, number: int, key: bytes) -> bytes:
    if cipher == 1:
        return bindings.crypto_aead_aegis256_decrypt(sealed, ad, number.to_bytes(32, "little"), key)
    return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, ad, number.to_bytes(24, "little"), key)


def expanded(codec: int, packed: bytes, length: int, base: bytes | None) -> bytes:
    if codec == 0:
        return packed
    if codec == 1:
        return bytes(lz4.block.decompress(packed, uncompressed_size=length))
    assert zstandard.frame_content_size(packed) == length
    if base is None:
        return zstandard.ZstdDecompressor().decompress(packed)
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdDecompressor(dict_data=dictionary).decompress(packed)


# ---- the repository -------------------------------------------------------------------------------


class Writing:
    """One pack in the making."""

    def __init__(self, kind: ChunkKind, cipher: int, keys: EpochKeys) -> None:
        self.buffer = mmap.mmap(-1, 1 << 20)
        self.key = keys.id_data if kind is ChunkKind.DATA else keys.id_tree
        self.name = PackId(bytes([kind]) * 32)
        self.builder = PackBuilder(
            self.buffer,
            name=self.name,
            kind=kind,
            keys=keys,
            repo_id=cases.REPO,
            cipher=get_cipher(cipher),
            salt=bytes([7]) * 32,
        )

    def add(self, *chunks: bytes, codec: int = 0, base: bytes | None = None) -> TreeId:
        data = b"".join(chunks)
        packed = data
        if codec == 1:
            packed = lz4.block.compress(data, store_size=False)
        if codec == 2 and base is None:
            packed = zstandard.compress(data)
        if base is not None:
            dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
            packed = zstandard.ZstdCompressor(dict_data=dictionary, write_dict_id=False).compress(data)
        members = Members.of(*[Member(chunk_id(self.key, chunk), len(chunk)) for chunk in chunks])
        base_id = None if base is None else chunk_id(self.key, base)
        record = self.builder.reserve(len(packed), codec, len(data), members, base_id)
        self.builder.seal(record, packed, bytearray(1 << 20))
        return TreeId(members[0].id)

    def finish(self) -> bytes:
        contents = self.builder.finish(b"\xaa" * self.builder.pad_size())
        return self.buffer[: contents.size]


ONE, TWO, THREE = b"first chunk " * 50, b"second chunk, " * 70, b"a third one"
EDITED = TWO[:300] + b"EDITED" + TWO[306:]


def repository(cipher: int) -> dict[str, bytes]:
    keys = derive_epoch(1, SECRET)
    data, tree = Writing(ChunkKind.DATA, cipher, keys), Writing(ChunkKind.TREE, cipher, keys)
    data.add(ONE, TWO, codec=2)
    data.add(THREE)
    data.add(EDITED, codec=2, base=TWO)
    one, two, three, edited = (chunk_id(keys.id_data, x) for x in (ONE, TWO, THREE, EDITED))
    long = pack_entries([(one, len(ONE)), (HOLE, 1000), (three, len(THREE))] * 30)
    lower = tree.add(encode_list_page(ListPage(0, long)), codec=1)
    upper = tree.add(encode_list_page(ListPage(1, pack_refs([(lower, 30), (lower, 30)]))))
    inner = tree.add(encode_page(Page(0, Summary(), (Node(b"edited", 1, content=entry(edited, EDITED)),))))
    left = tree.add(
        encode_page(
            Page(
                0,
                Summary(),
                (
                    Node(b"a", 1, content=entry(two, TWO) + entry(three, THREE)),
                    Node(b"folder", 2, subtree=inner),
                ),
            )
        )
    )
    leaf = ListPage(0, pack_entries([(two, len(TWO)), (one, len(ONE))]), (b"a", b"label"))
    labelled = tree.add(encode_list_page(leaf), codec=1)
    above = tree.add(encode_list_page(ListPage(1, pack_refs([(labelled, 1), (labelled, 1)]), (b"a", b"a"))))
    files = (Node(b"long", 1, content=upper, depth=2), Node(b"sorted", 1, content=above, depth=2))
    right = tree.add(encode_page(Page(0, Summary(), files)))
    refs = (PageRef(b"a", left, Summary(), 2), PageRef(b"long", right, Summary(), 2))
    root = tree.add(encode_page(Page(1, Summary(), refs=refs)))
    config = cases.one_config()
    config = type(config)(
        id=cases.REPO,
        cipher=cipher,
        chunker=config.chunker,
        created=cases.WHEN,
        epochs=(Epoch(1, SECRET),),
    )
    old = cases.one_snapshot()
    snapshot = type(old)(root, old.time, "host", "user", old.source, None, frozenset(), 1, old.statistics)
    stored = seal_object(
        c.OBJECT_SNAPSHOT,
        encode_snapshot(snapshot),
        cipher=get_cipher(cipher),
        epoch=1,
        key=keys.meta,
        repo_id=cases.REPO,
    )
    cost = Argon2Cost(c.ARGON2_MEMORY_MIN, c.ARGON2_PASSES_MIN)
    slots = [
        encode_slot(
            cases.ROOT_KEY, secret, repo_id=cases.REPO, cipher=cipher, label="", created=cases.WHEN, cost=cost
        )
        for secret in (Passphrase(PASSPHRASE), KEY_FILE)
    ]
    return {
        "config": encode_config(config, cases.ROOT_KEY),
        "keys/00": slots[0],
        "keys/01": slots[1],
        f"packs/{data.name.hex()}": data.finish(),
        f"packs/{tree.name.hex()}": tree.finish(),
        f"snapshots/{snapshot_id(stored).hex()}": stored,
    }


def entry(identifier: ChunkId, data: bytes) -> bytes:
    return pack_entries([(identifier, len(data))])


@pytest.mark.parametrize("cipher", [1, 2])
@pytest.mark.parametrize("secret", ["passphrase", "key file"])
def test_a_reader_made_from_the_page_reads_everything(cipher: int, secret: str) -> None:
    store = repository(cipher)
    if secret == "passphrase":
        reader = Reader(store, passphrase=PASSPHRASE)
    else:
        reader = Reader(store, key_file=format_key_file(KEY_FILE, cases.REPO))
    (snapshot,) = reader.snapshots()
    assert dict(reader.files(snapshot[0])) == {
        b"a": TWO + THREE,
        b"folder/edited": EDITED,
        b"long": (ONE + bytes(1000) + THREE) * 60,
        b"sorted": (TWO + ONE) * 2,
    }
