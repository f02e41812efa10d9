"""Write sessions as tests need them: of processes that are dead, or that stand still half way."""

import subprocess
import sys
from dataclasses import replace
from functools import cache

from dedupstore.errors import ObjectNotFound
from dedupstore.format import constants as c
from dedupstore.format.codec import Compression
from dedupstore.format.collection import (
    GENERATION_NAME,
    condemned_name,
    encode_generation,
    encode_packs,
    verdict_name,
)
from dedupstore.format.tree import Page, encode_page
from dedupstore.ids import PackId, TreeId
from dedupstore.model import Node, NodeKind, Summary
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.repository.machine import Machine
from dedupstore.repository.repository import Repository
from dedupstore.repository.session import WriteSession

LZ4 = Compression.parse("lz4")


@cache
def dead_machine() -> Machine:
    """A process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(Machine.here(), pid=child.pid)


def begin(repo: Repository, *, dead: bool = False) -> WriteSession:
    repo.sync()
    return WriteSession(
        store=repo.store,
        keychain=repo.keychain,
        index=repo.index,
        clock=repo.clock,
        machine=dead_machine() if dead else Machine.here(),
        pack_size=repo.config.pack_size,
        compression=LZ4,
    )


def page_of(content: bytes = b"", size: int = 0) -> bytes:
    node = Node(name=b"file", kind=NodeKind.FILE, size=size, content=content)
    return encode_page(Page(0, Summary(1, size, 0), (node,)))


def page_for(session: WriteSession, *data: bytes) -> TreeId:
    """Store some chunks and a page with one file that is made of them."""
    content = b"".join(session.put(piece).id + len(piece).to_bytes(4, "little") for piece in data)
    return session.save_page(page_of(content, sum(map(len, data))))


def collect(repo: Repository, generation: int, condemned: list[PackId], verdict: bool = False) -> None:
    """Do what a collector does: condemn packs, then move the generation."""

    def put(name: str, kind: int, payload: bytes) -> None:
        sealed = repo.keychain.seal(kind, payload, name.encode())
        key = ObjectKey(ObjectKind.GC, name)
        try:
            before = repo.store.get(key)
        except ObjectNotFound:
            before = None
        repo.store.replace(key, sealed, expect=before)

    put(condemned_name(generation), c.OBJECT_GC_CONDEMNED, encode_packs(condemned))
    if verdict:
        put(verdict_name(generation), c.OBJECT_GC_VERDICT, encode_packs(condemned))
    put(GENERATION_NAME, c.OBJECT_GC_GENERATION, encode_generation(generation))
