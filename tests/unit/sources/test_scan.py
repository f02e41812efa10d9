import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dedupstore.errors import SourceError, SourceVanished, UsageError
from dedupstore.model import Node, NodeKind, SourceSpec
from dedupstore.sources.base import Source
from dedupstore.sources.files.folder import CACHE_SIGNATURE
from dedupstore.sources.files.listing import Lister
from dedupstore.sources.files.options import FilesOptions
from dedupstore.sources.files.scan import FilesSource

Walk = Callable[[Source], dict[bytes, Node]]


@pytest.fixture
def base(tmp_path: Path) -> bytes:
    """A small tree: its path."""
    for name in ("a/b/c", "a/cache", "d"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a/one.txt", "a/b/two.o", "a/b/c/three.txt", "a/cache/four", "d/five.o", "six"):
        (tmp_path / name).write_bytes(name.encode())
    return os.fsencode(tmp_path)


def names(found: dict[bytes, Node], base: bytes) -> set[bytes]:
    return {path[len(base) + 1 :] for path in found if path.startswith(base + b"/")}


def options(*lines: bytes, **others: object) -> FilesOptions:
    return replace(FilesOptions(exclude=lines), **others)  # type: ignore[arg-type]


EVERYTHING = {
    b"a", b"a/b", b"a/b/c", b"a/b/c/three.txt", b"a/b/two.o", b"a/cache", b"a/cache/four", b"a/one.txt",
    b"d", b"d/five.o", b"six",
}  # fmt: skip


def test_the_way_to_a_source_is_part_of_the_tree(base: bytes, lister: Lister, walk: Walk) -> None:
    source = FilesSource([base], lister=lister)
    found = walk(source)
    way, path = set(), base
    while path != b"/":
        way.add(path)
        path = os.path.dirname(path)
    assert set(found) == way | {base + b"/" + name for name in EVERYTHING}
    for path in way:
        status = os.stat(path)
        assert found[path].kind == NodeKind.DIR
        assert (found[path].mode, found[path].mtime) == (stat.S_IMODE(status.st_mode), status.st_mtime_ns)


def test_the_root_folder_can_be_a_source(lister: Lister) -> None:
    source = FilesSource([b"/"], lister=lister)
    top = source.top()
    listed = {item.name for segment in top.listing() for item in top.items(segment)}
    assert listed == {os.fsencode(name) for name in os.listdir("/")}
    assert top.path == b"/"
    item = next(i for s in top.listing() for i in top.items(s) if i.name == b"etc")
    assert top.folder(item).path == b"/etc"
    source.close()


def test_repeated_and_nested_paths_are_one(base: bytes, lister: Lister, walk: Walk) -> None:
    source = FilesSource([base + b"/a/b", base, base + b"/", b"//" + base + b"/d/../a/."], lister=lister)
    assert source.spec == SourceSpec("files", (base,), {})
    assert names(walk(source), base) == EVERYTHING


def test_several_paths_share_their_way(base: bytes, lister: Lister, walk: Walk) -> None:
    found = walk(FilesSource([base + b"/d", base + b"/a/b/c", base + b"/six"], lister=lister))
    assert names(found, base) == {b"a", b"a/b", b"a/b/c", b"a/b/c/three.txt", b"d", b"d/five.o", b"six"}


def test_relative_paths_begin_where_we_are(
    base: bytes, lister: Lister, walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(os.fsdecode(base))
    source = FilesSource([b"a/../d"], lister=lister)
    assert source.spec.paths == (base + b"/d",)
    assert names(walk(source), base) == {b"d", b"d/five.o"}


def test_a_source_path_that_is_a_file_or_a_symlink(base: bytes, lister: Lister, walk: Walk) -> None:
    os.symlink(b"d", base + b"/link")
    found = walk(FilesSource([base + b"/six", base + b"/link"], lister=lister))
    assert names(found, base) == {b"six", b"link"}
    assert (found[base + b"/six"].kind, found[base + b"/six"].size) == (NodeKind.FILE, 3)
    assert (found[base + b"/link"].kind, found[base + b"/link"].target) == (NodeKind.SYMLINK, b"d")


def test_symlinks_above_a_source_are_followed(base: bytes, lister: Lister, walk: Walk) -> None:
    os.symlink(b"a", base + b"/link")
    found = walk(FilesSource([base + b"/link/b/c"], lister=lister))
    assert names(found, base) == {b"link", b"link/b", b"link/b/c", b"link/b/c/three.txt"}
    assert found[base + b"/link"].kind == NodeKind.DIR
    assert found[base + b"/link"].mtime == os.stat(base + b"/a").st_mtime_ns


def test_a_path_beyond_a_symlink_that_is_stored_as_one_is_refused(base: bytes, lister: Lister) -> None:
    os.symlink(b"../d", base + b"/a/link")
    for other in (base + b"/a", base + b"/a/link"):
        source = FilesSource([other, base + b"/a/link/five.o"], lister=lister)
        with pytest.raises(UsageError, match=r"lies beyond the symlink .*: name .* instead"):
            source.top()


def test_a_path_that_is_not_there_is_told(base: bytes, lister: Lister, walk: Walk) -> None:
    source = FilesSource([base + b"/d", base + b"/gone", base + b"/six/below"], lister=lister)
    assert names(walk(source), base) == {b"d", b"d/five.o"}
    assert [path for path, _ in source.absent] == [base + b"/gone", base + b"/six/below"]
    assert all(isinstance(error, SourceVanished) for _, error in source.absent)


def test_if_none_is_there_the_source_fails(base: bytes, lister: Lister, descriptors: None) -> None:
    source = FilesSource([base + b"/gone", base + b"/lost"], lister=lister)
    with pytest.raises(SourceError, match=r"none of these could be reached: .*gone, .*lost") as caught:
        source.top()
    assert caught.value.data["paths"] == (base + b"/gone", base + b"/lost")


@pytest.mark.parametrize("paths", [[], [b""], [b"/a\0b"]])
def test_paths_that_make_no_sense_are_refused(paths: list[bytes]) -> None:
    with pytest.raises(UsageError):
        FilesSource(paths)


@pytest.mark.parametrize(
    ("lines", "gone"),
    [
        ([b"*.o"], {b"a/b/two.o", b"d/five.o"}),
        ([b"*.o", b"!five.o"], {b"a/b/two.o"}),
        ([b"cache/"], {b"a/cache", b"a/cache/four"}),
        ([b"/a/b"], {b"a/b", b"a/b/c", b"a/b/c/three.txt", b"a/b/two.o"}),
        ([b"b/c"], set()),
        ([b"a/**/three.txt"], {b"a/b/c/three.txt"}),
        ([b"/a/*", b"!/a/one.txt"], EVERYTHING - {b"a", b"a/one.txt", b"d", b"d/five.o", b"six"}),
    ],
)
def test_excludes(base: bytes, lister: Lister, walk: Walk, lines: list[bytes], gone: set[bytes]) -> None:
    assert names(walk(FilesSource([base], options(*lines), lister=lister)), base) == EVERYTHING - gone


def test_absolute_excludes(base: bytes, lister: Lister, walk: Walk) -> None:
    found = walk(FilesSource([base], options(base + b"/a/cache"), lister=lister))
    assert names(found, base) == EVERYTHING - {b"a/cache", b"a/cache/four"}


def test_a_source_path_is_never_excluded(base: bytes, lister: Lister, walk: Walk) -> None:
    everything = options(b"*", base)
    found = walk(FilesSource([base, base + b"/a/b/c", base + b"/d/five.o"], everything, lister=lister))
    assert names(found, base) == {b"a", b"a/b", b"a/b/c", b"d", b"d/five.o"}


def test_of_a_cache_only_the_tag_is_kept(base: bytes, lister: Lister, walk: Walk) -> None:
    for folder, content in ((b"a", CACHE_SIGNATURE + b"\n# why"), (b"d", CACHE_SIGNATURE[:-1] + b"!")):
        with open(os.path.join(base, folder, b"CACHEDIR.TAG"), "wb") as file:
            file.write(content)
    with open(os.path.join(base, b"a/b/CACHEDIR.TAG"), "wb") as file:
        file.write(CACHE_SIGNATURE)
    caches = options(exclude_caches=True)
    found = names(walk(FilesSource([base], caches, lister=lister)), base)
    assert found == {b"a", b"a/CACHEDIR.TAG", b"d", b"d/CACHEDIR.TAG", b"d/five.o", b"six"}
    found = names(walk(FilesSource([base, base + b"/a/b/c"], caches, lister=lister)), base)
    assert found - {b"d", b"d/CACHEDIR.TAG", b"d/five.o", b"six"} == {
        b"a", b"a/CACHEDIR.TAG", b"a/b", b"a/b/c", b"a/b/c/three.txt",
    }  # fmt: skip


def test_a_tag_that_is_no_file_is_no_tag(base: bytes, lister: Lister, walk: Walk) -> None:
    os.mkfifo(base + b"/a/CACHEDIR.TAG")
    os.symlink(b"five.o", base + b"/d/CACHEDIR.TAG")
    found = walk(FilesSource([base], options(exclude_caches=True), lister=lister))
    assert names(found, base) == EVERYTHING | {b"a/CACHEDIR.TAG", b"d/CACHEDIR.TAG"}


def test_large_files_are_left_out(base: bytes, lister: Lister, walk: Walk) -> None:
    with open(base + b"/exact", "wb") as file:
        file.truncate(1000)
    with open(base + b"/more", "wb") as file:
        file.truncate(1001)
    found = walk(FilesSource([base], options(exclude_larger_than=1000), lister=lister))
    assert names(found, base) == EVERYTHING | {b"exact"}


@pytest.fixture
def mounted(base: bytes) -> Iterator[bytes]:
    """Another file system at ``a/b``, with a folder and a file in it."""
    try:
        subprocess.run(["mount", "-t", "tmpfs", "none", base + b"/a/b"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    os.mkdir(base + b"/a/b/inside")
    open(base + b"/a/b/inside/file", "x").close()
    yield base
    subprocess.run(["umount", base + b"/a/b"], check=True)


def test_one_file_system_keeps_mount_points_empty(mounted: bytes, lister: Lister, walk: Walk) -> None:
    rest = EVERYTHING - {b"a/b/c", b"a/b/c/three.txt", b"a/b/two.o"}
    one = options(one_file_system=True)
    assert names(walk(FilesSource([mounted], one, lister=lister)), mounted) == rest
    both = rest | {b"a/b/inside", b"a/b/inside/file"}
    assert names(walk(FilesSource([mounted], lister=lister)), mounted) == both
    source = FilesSource([mounted, mounted + b"/a/b"], one, lister=lister)
    assert source.spec.paths == (mounted, mounted + b"/a/b")
    assert names(walk(source), mounted) == both
    source = FilesSource([mounted, mounted + b"/a/b/inside/file"], one, lister=lister)
    assert names(walk(source), mounted) == both


def test_links_on_another_device_carry_it(mounted: bytes, lister: Lister, walk: Walk) -> None:
    os.link(mounted + b"/a/b/inside/file", mounted + b"/a/b/inside/other")
    os.link(mounted + b"/six", mounted + b"/seven")
    found = walk(FilesSource([mounted], lister=lister))
    assert len(found[mounted + b"/six"].link) == 8
    assert len(found[mounted + b"/a/b/inside/file"].link) == 16
    assert found[mounted + b"/a/b/inside/file"].link == found[mounted + b"/a/b/inside/other"].link


def test_every_option_is_in_the_key_and_in_words() -> None:
    several = [
        FilesOptions(),
        options(b"a"),
        options(b"a", b"b"),
        options(b"b", b"a"),
        options(b"ab"),
        options(exclude_caches=True),
        options(exclude_larger_than=0),
        options(exclude_larger_than=1),
        options(one_file_system=True),
    ]
    sources = [FilesSource([b"/x"], each) for each in several] + [FilesSource([b"/x", b"/y"])]
    assert len({source.key for source in sources}) == len(sources)
    assert {len(source.key) for source in sources} == {16}
    assert len({str(source.spec) for source in sources}) == len(sources)
    assert FilesSource([b"/x"]).key == FilesSource([b"/x/."]).key
    assert FilesSource([b"/x"], options(b"a\xff\n")).spec.options == {"exclude": "a\\xff\\n"}


def test_owners_have_names(lister: Lister) -> None:
    source = FilesSource([b"/"], lister=lister)
    assert source.user_name(0) == b"root"
    assert source.group_name(0) == b"root"
    assert source.user_name(3_999_999_999) is None
    assert source.group_name(3_999_999_999) is None


def as_nobody(work: Callable[[], str]) -> str:
    """Run ``work`` in a process without privileges; returns what it returns."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        text = "died"
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            text = work()
        finally:
            os.write(theirs, text.encode())
            os._exit(0)
    os.close(theirs)
    with open(ours, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """A folder anybody can reach."""
    path = f"/tmp/public-{os.getpid()}"
    os.mkdir(path, 0o755)
    os.chmod(path, 0o755)
    yield os.fsencode(path)
    subprocess.run(["rm", "-rf", path], check=True)


def test_what_a_user_may_not_read_is_named(public: bytes, lister: Lister) -> None:
    for name, mode in ((b"closed", 0o700), (b"unsearchable", 0o744), (b"open", 0o755)):
        os.mkdir(public + b"/" + name)
        open(public + b"/" + name + b"/file", "x").close()
        os.chmod(public + b"/" + name, mode)
    with open(public + b"/open/secret", "x") as file:
        os.chmod(file.fileno(), 0o600)

    def work() -> str:
        words = []
        source = FilesSource([public], lister=lister)
        folder = source.top()
        for name in public.split(b"/")[1:]:
            folder = folder.folder(
                next(i for s in folder.listing() for i in folder.items(s) if i.name == name)
            )
        for segment in folder.listing():
            for item in folder.items(segment):
                below = folder.folder(item)
                try:
                    for file in (i for s in below.listing() for i in below.items(s)):
                        try:
                            below.read(file, memoryview(bytearray(10)))
                            words.append(f"read {file.name!r}")
                        except SourceError as error:
                            words.append(str(error))
                except SourceError as error:
                    words.append(str(error))
        return "\n".join(words)

    said = as_nobody(work).splitlines()
    refused = "can not be read (Permission denied): run as a user who may read it, or exclude it"
    where = public.decode()
    assert said == [
        f"{where}/closed {refused}",
        "read b'file'",
        f"{where}/open/secret {refused}",
        f"{where}/unsearchable {refused}",
    ]


def test_another_users_readable_file_is_read_although_its_access_time_is_not_ours_to_keep(
    public: bytes, lister: Lister
) -> None:
    with open(public + b"/file", "xb") as file:
        file.write(b"abc")
    os.chmod(public + b"/file", 0o644)

    def work() -> str:
        source = FilesSource([public + b"/file"], lister=lister)
        folder = source.top()
        for name in public.split(b"/")[1:]:
            folder = folder.folder(
                next(i for s in folder.listing() for i in folder.items(s) if i.name == name)
            )
        item = next(i for s in folder.listing() for i in folder.items(s))
        return str(folder.read(item, memoryview(bytearray(10)))[1])

    assert as_nobody(work) == "3"
