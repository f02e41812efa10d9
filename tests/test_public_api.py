"""The surface: what is exported, typed and documented."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dedupstore

ROOT = Path(__file__).resolve().parent.parent


def test_the_package_is_typed_and_has_a_version() -> None:
    assert (ROOT / "dedupstore" / "py.typed").exists()
    assert f'version = "{dedupstore.__version__}"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_every_package_is_listed_for_installation() -> None:
    listed = (ROOT / "pyproject.toml").read_text("utf-8")
    for init in ROOT.glob("dedupstore/**/__init__.py"):
        name = ".".join(init.parent.relative_to(ROOT).parts)
        assert f'"{name}"' in listed, f"{name} would be missing from an installation"
    for init in ROOT.glob("cli/**/__init__.py"):
        name = ".".join(["dstore_cli", *init.parent.relative_to(ROOT / "cli").parts])
        assert f'"{name}"' in listed, f"{name} would be missing from an installation"


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs/quickstart.md", "docs/architecture.md",
     "docs/threat-notes.md", "docs/cli.md", "docs/benchmarks.md", "dedupstore/format/FORMAT.md"],
)  # fmt: skip
def test_a_page_is_there_and_its_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    text = path.read_text("utf-8")
    for part in text.split("](")[1:]:
        target = part.partition(")")[0].partition("#")[0]
        if target and "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}, which is not there"


def test_the_decisions_are_indexed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    for page in folder.glob("[0-9]*.md"):
        assert f"({page.name})" in index, f"{page.name} is not in the index of decisions"


def test_light_commands_do_not_import_what_they_do_not_need() -> None:
    """Looking at a repository must not pay for numpy, rich tables or the write path's compressors."""
    code = (
        "import sys; import cli.commands.snapshots; "
        "print(sorted({'numpy', 'pymongo', 'rich', 'asyncio', 'urllib.request'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["dedupstore.testing.contracts", "dedupstore.testing.stores"])
def test_the_testing_tools_are_shipped(module: str) -> None:
    assert importlib.import_module(module).__doc__
