"""Opening stores by URL."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dedupstore.errors import ObjectExists, ObjectNotFound, StoreError, UsageError
from dedupstore.objectstore.base import CONFIG_KEY
from dedupstore.objectstore.local import LocalStore
from dedupstore.objectstore.url import open_store


def test_paths_and_file_urls_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "a b#c"
    open_store(str(place), create=True).put(CONFIG_KEY, [b"c"])
    monkeypatch.chdir(tmp_path)
    quoted = str(place).replace(" ", "%20").replace("#", "%23")
    for url in (
        str(place),
        "a b#c",
        "./a b#c",
        f"file://{quoted}",
        f"FILE://localhost{quoted}",
        f"file:{quoted}",
    ):
        store = open_store(url)
        assert isinstance(store, LocalStore)
        assert store.get(CONFIG_KEY) == b"c"


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("here", create=True)
    monkeypatch.chdir("/")
    store.put(CONFIG_KEY, [b"c"])
    assert (tmp_path / "here/config").read_bytes() == b"c"


def test_a_colon_in_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("disk:backup", create=True).put(CONFIG_KEY, [b"c"])
    assert (tmp_path / "disk:backup/config").exists()


def test_opening_touches_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ObjectNotFound):
        store.get(CONFIG_KEY)


def test_create_needs_an_empty_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ObjectExists, match="not empty"):
        open_store(str(tmp_path), create=True)
    with pytest.raises(StoreError, match="not there"):
        open_store(str(tmp_path / "no/parent"), create=True)


@pytest.mark.parametrize(
    "url", ["s3://bucket/x", "s3:host/bucket", "gs://b", "az://c", "sftp:me@host:/x", "SFTP://h/x"]
)
def test_clouds_are_for_later(url: str) -> None:
    with pytest.raises(UsageError, match="local folders only"):
        open_store(url)


@pytest.mark.parametrize("url", ["gopher://x/y", "http://x"])
def test_unknown_schemes_list_the_known(url: str) -> None:
    with pytest.raises(UsageError, match="one of file"):
        open_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:",
        "file://",
        "file:relative",
        "file://host/x",
        "file:///x?y",
        "file:///x#y",
        "/x\0y",
        "file:///%00",
    ],
)
def test_urls_that_name_no_folder(url: str) -> None:
    with pytest.raises(UsageError):
        open_store(url)


def test_a_plugin_opens_its_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with an entry point, as an installer leaves it."""
    (tmp_path / "plug_store.py").write_text(
        "from dedupstore.objectstore.memory import MemoryStore\n"
        "def open_it(url, create):\n"
        "    store = MemoryStore()\n"
        "    store.opened = (url, create)\n"
        "    return store\n"
    )
    info = tmp_path / "plug_store-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-store\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[dedupstore.stores]\nplug = plug_store:open_it\nfile = plug_store:open_it\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    store = open_store("plug://x/y", create=True)
    assert vars(store)["opened"] == ("plug://x/y", True)
    assert isinstance(open_store(str(tmp_path)), LocalStore), "a plug-in took over a built-in scheme"
    with pytest.raises(UsageError, match="one of file, plug"):
        open_store("nobody://x")


def test_stores_are_imported_when_needed() -> None:
    code = (
        "import sys, dedupstore.objectstore.url\n"
        "print('dedupstore.objectstore.local' in sys.modules)\n"
        "dedupstore.objectstore.url.open_store('/nowhere')\n"
        "print('dedupstore.objectstore.local' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout.split() == ["False", "True"]
