"""A repository in memory, folders to back up, and trees no honest backup would make."""

import os
import socket
import stat
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.findings import printable
from dedupstore.format import constants as c
from dedupstore.format.chunklist import pack_entries
from dedupstore.format.config import ChunkerConfig, Epoch, RepoConfig
from dedupstore.format.keys import KeyFile
from dedupstore.format.tree import Page, encode_page
from dedupstore.ids import ChunkId, TreeId
from dedupstore.model import ChunkKind, Node, NodeKind, Snapshot, SourceSpec, Statistics, Summary
from dedupstore.objectstore.base import ObjectStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.backup.archiver import BackupOptions, back_up
from dedupstore.ops.restore.restorer import Action, RestoreOptions, RestoreResult, restore
from dedupstore.progress import NullReporter
from dedupstore.repository.keyring import create, unlock
from dedupstore.repository.repository import Repository
from dedupstore.sources.files.scan import FilesSource

KEY = KeyFile(bytes(32), bytes(range(16)))
TIME = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SUFFIX = ".restored-20260304T050607Z"
OLD, NEW = 1_500_000_000_000_000_001, 1_700_000_000_000_000_002


def make_repository(cache: Path, store: ObjectStore | None = None) -> Repository:
    """Return a new repository with small chunks, so that small files have several."""
    config = RepoConfig(
        id=bytes(range(16)),
        cipher=c.CIPHER_XCHACHA20,
        chunker=ChunkerConfig(1024, 2048, 8192, 1 << 20, 1 << 22),
        created=TIME,
        epochs=(Epoch(1, bytes(32)),),
        pack_size=c.PACK_SIZE_MIN,
        record_size=16 * c.KIB,
        small_file=2048,
    )
    return create(store or MemoryStore(), KEY, config, bytes(32), cache=cache, label="test")[0]


def reopen(cache: Path, store: ObjectStore) -> Repository:
    return unlock(store, KEY, cache=cache)[0]


def take(repo: Repository, *paths: Path) -> Snapshot:
    """Back folders up."""
    source = FilesSource([os.fsencode(path) for path in paths])
    options = BackupOptions("host", "user", time=TIME)
    result = back_up(repo, source, options, NullReporter(), SYSTEM_CLOCK)
    assert not result.findings
    return result.snapshot


def bring(
    repo: Repository,
    snapshot: Snapshot,
    target: Path,
    options: RestoreOptions | None = None,
    paths: Sequence[bytes] = (),
    heard: list[tuple[Action, bytes]] | None = None,
) -> RestoreResult:
    """Restore."""

    def hear(action: Action, path: bytes) -> None:
        assert heard is not None
        heard.append((action, path))

    return restore(
        repo,
        snapshot,
        target,
        paths,
        options or RestoreOptions(),
        NullReporter(),
        None if heard is None else hear,
    )


def differences(source: Path, copy: Path) -> list[str]:
    """Return what rsync would change to make ``copy`` like ``source``, byte for byte."""
    command = ["rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", f"{source}/", f"{copy}/"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def nasty_tree(root: Path) -> None:
    """Make one of everything that a file system of this machine and user takes."""
    raw = os.fsencode(root)
    for folder in (b"a", b"a/deep", b"a/deep/er", b"empty", b"z", b"locked", b"sticky"):
        os.makedirs(raw + b"/" + folder)
    _put(raw + b"/a/small", b"hello")
    _put(raw + b"/a/nothing", b"")
    _put(raw + b"/a/middling", os.urandom(5000))
    _put(raw + b"/a/large", os.urandom(300_000))
    _put(raw + b"/a/repeated", b"0123456789abcdef" * 20_000)
    _put(raw + b"/a/\xff\xfe not utf-8 \n\t", b"bytes")
    _put(raw + b"/a/" + b"n" * 255, b"long name")
    _put(raw + b"/a/.dstore-of-mine.tmp", b"not ours")
    _put(raw + b"/a/deep/er/set-id", b"#!", 0o6755)
    _put(raw + b"/a/deep/unreadable", b"secret", 0o000 if os.geteuid() == 0 else 0o600)
    os.link(raw + b"/a/large", raw + b"/z/second name")
    os.link(raw + b"/a/large", raw + b"/a/deep/third name")
    os.symlink(b"../a/small", raw + b"/z/link")
    os.symlink(b"/nowhere/at all", raw + b"/z/dangling")
    os.symlink(b"a", raw + b"/to-folder")
    os.mkfifo(raw + b"/z/fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        folder = os.open(raw + b"/z", os.O_PATH)
        server.bind(b"/proc/self/fd/%d/socket" % folder)
        os.close(folder)
    _holes(raw + b"/z/sparse")
    _attributes(raw)
    if os.geteuid() == 0:
        os.mknod(raw + b"/z/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(raw + b"/z/block", stat.S_IFBLK | 0o660, os.makedev(7, 99))
        os.chown(raw + b"/a/small", 1234, 4321)
        os.chown(raw + b"/a/deep/er", 12345, 0)
        os.chown(raw + b"/z/link", 1, 2, follow_symlinks=False)
        os.chown(raw + b"/a/deep/er/set-id", 77, 88)
        os.chmod(raw + b"/a/deep/er/set-id", 0o6755)
    os.chmod(raw + b"/sticky", 0o1777)
    os.chmod(raw + b"/empty", 0o2750)
    os.chmod(raw + b"/locked", 0o555)
    _ages(raw)


def _put(path: bytes, content: bytes, mode: int = 0o644) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def _holes(path: bytes) -> None:
    with open(path, "wb") as file:
        file.seek(1 << 20)
        file.write(b"in the middle" * 1000)
        file.truncate(5 << 20)


def _attributes(raw: bytes) -> None:
    with suppress(OSError):  # not every file system has them
        os.setxattr(raw + b"/a/small", b"user.colour", b"blue\0green")
        os.setxattr(raw + b"/a/deep", b"user.empty", b"")
        _put(raw + b"/a/read-only with attributes", b"x", 0o444 if os.geteuid() == 0 else 0o644)
        os.setxattr(raw + b"/a/read-only with attributes", b"user.a", b"1" * 500)
        os.setxattr(raw + b"/a/middling", b"system.posix_acl_access", ACL)
        os.setxattr(raw + b"/a/deep/er", b"system.posix_acl_default", ACL)
    if os.geteuid() == 0:
        with suppress(OSError):
            capability = bytes.fromhex("0100000202040000000000000000000000000000")
            os.setxattr(raw + b"/a/deep/er/set-id", b"security.capability", capability)
            os.setxattr(raw + b"/z/link", b"trusted.on-a-link", b"1", follow_symlinks=False)


def _entry(tag: int, permissions: int, who: int = 0xFFFFFFFF) -> bytes:
    return tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + who.to_bytes(4, "little")


ACL = b"\x02\0\0\0" + b"".join([_entry(1, 6), _entry(2, 7, 1000), _entry(4, 4), _entry(16, 5), _entry(32, 0)])
"""user::rw-, user:1000:rwx, group::r--, mask::r-x, other::---"""


def _ages(raw: bytes) -> None:
    stamp = OLD
    for folder, folders, files in os.walk(raw, topdown=False):
        for name in (*files, *folders):
            stamp += 1_000_000_007
            os.utime(folder + b"/" + name, ns=(stamp, stamp), follow_symlinks=False)
    os.utime(raw, ns=(OLD, -OLD))


def chunk_node(repo: Repository, name: bytes, content: bytes, **fields: object) -> Node:
    """Return a file of one chunk that the repository does not hold yet; see `store`."""
    chunk = repo.keychain.chunk_id(ChunkKind.DATA, content)
    entries = pack_entries([(chunk, len(content))]) if content else b""
    return Node(name, NodeKind.FILE, 0o644, size=len(content), mtime=OLD, content=entries, **fields)  # type: ignore[arg-type]


def forge(
    repo: Repository, folders: Iterable[tuple[bytes, Sequence[Node]]], chunks: Sequence[bytes] = ()
) -> Snapshot:
    """Commit a tree page by page, as an attacker with the keys could.

    The folders come deepest first, the root last; in a folder's entries, a DIR whose ``subtree`` is None
    gets the page of the folder that came under its name.
    """
    pages: dict[bytes, TreeId] = {}
    with repo.writing() as session:
        for content in chunks:
            session.put(content, ChunkKind.DATA)
        root = TreeId(ChunkId(b""))
        for name, nodes in folders:
            filled = tuple(
                Node(n.name, n.kind, 0o755, mtime=OLD, subtree=pages[n.name], summary=Summary())
                if n.kind == NodeKind.DIR and n.subtree is None
                else n
                for n in nodes
            )
            root = pages[name] = session.save_page(encode_page(Page(0, Summary(), filled)))
        snapshot = Snapshot(
            root=root,
            time=TIME,
            host="host",
            user="user",
            source=SourceSpec("files", (b"/",)),
            parent=None,
            tags=frozenset(),
            sequence=1,
            statistics=Statistics(),
        )
        session.commit(snapshot)
    return snapshot


def messages(result: RestoreResult) -> list[str]:
    return [f"{found.where}: {found.error}" for found in result.findings]


def names_under(path: Path) -> set[str]:
    return {printable(os.fsencode(found.relative_to(path))) for found in path.rglob("*")}


def assert_clean(target: Path) -> None:
    """No temporary name is left."""
    left = [p for p in target.rglob(".dstore-*.tmp") if len(p.name) == 20]
    assert not left
