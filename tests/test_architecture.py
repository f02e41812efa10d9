"""The plan of the house, proved: layers, cycles, hidden imports, owners of packages, sizes, names."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {
    "dedupstore.ids": 0,
    "dedupstore.errors": 0,
    "dedupstore.model": 0,
    "dedupstore.clock": 0,
    "dedupstore.progress": 0,
    "dedupstore.findings": 0,
    "dedupstore.format": 1,
    "dedupstore.chunker": 1,
    "dedupstore.objectstore": 1,
    "dedupstore.repository": 2,
    "dedupstore.tree": 3,
    "dedupstore.sources": 3,
    "dedupstore.documents": 4,
    "dedupstore.ops": 5,
    "dedupstore.query": 5,  # asks views, as the verbs do; knows none of them, nor they it
    "dedupstore.testing": 6,
    "dedupstore.server": 7,  # a front end of its own: it is asked over the network, and prints nothing
    "cli": 8,
}
SIBLINGS = [  # packages that must not know each other though they share a layer
    {"dedupstore.format", "dedupstore.chunker", "dedupstore.objectstore"},
    {"dedupstore.tree", "dedupstore.sources"},
    {"dedupstore.ops", "dedupstore.query"},
    {"dedupstore.ops.backup", "dedupstore.ops.restore", "dedupstore.ops.verify", "dedupstore.ops.stats"},
]
OWNERS = {
    "blake3": {"dedupstore.format.crypto"},
    "nacl": {"dedupstore.format.crypto", "dedupstore.format.keys"},
    "lz4": {"dedupstore.format.codec"},
    "zstandard": {"dedupstore.format.codec"},
    "lmdb": {"dedupstore.repository"},
    "msgspec": {
        "dedupstore.model",
        "dedupstore.format",
        "dedupstore.repository",
        "dedupstore.tree",
        "dedupstore.documents",
        "dedupstore.ops",
        "dedupstore.sources",
        "cli",
    },
    "numpy": {"dedupstore.chunker.blocks"},
    "pymongo": {"dedupstore.sources.mongo", "dedupstore.server.mongowire.scram"},
    "bson": {"dedupstore.sources.mongo"},
    "typer": {"cli"},
    "rich": {"cli"},
}
FILE_MAX, FUNCTION_MAX, COMMAND_MAX = 400, 60, 120
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("dedupstore", "cli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


MODULES = modules()
NATIVE = sorted(path for path in (ROOT / "dedupstore").rglob("*.[ch]"))
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def imports(name: str, tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")
                anchor = anchor[: len(anchor) - node.level + 1]
                base = ".".join([*anchor, *([base] if base else [])])
            base = base.replace("dstore_cli", "cli")
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield (whole if whole in MODULES else base), node


def own(target: str) -> str | None:
    """Return the module of ours that an import names, if it is one."""
    while target:
        if target in MODULES:
            return target
        target = target.rpartition(".")[0]
    return None


def layer(name: str) -> int:
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        key = ".".join(parts[:size])
        if key in LAYERS:
            return LAYERS[key]
    raise AssertionError(f"{name} is in no layer: give it a place in LAYERS")


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 60


@pytest.mark.parametrize("name", [n for n in MODULES if n not in {"dedupstore", "dedupstore.ops"}])
def test_imports_point_down(name: str) -> None:
    for target, node in imports(name, TREES[name]):
        ours = own(target)
        if ours is None or ours == "dedupstore":
            continue
        assert layer(ours) <= layer(name), f"{name}:{node.lineno} imports {ours}, which lies above it"


@pytest.mark.parametrize(
    "group", SIBLINGS, ids=lambda group: "-".join(sorted(n.split(".")[-1] for n in group))
)
def test_siblings_do_not_know_each_other(group: set[str]) -> None:
    for name in MODULES:
        home = next((package for package in group if within(name, package)), None)
        if home is None:
            continue
        for target, node in imports(name, TREES[name]):
            for other in group - {home}:
                assert not within(target, other), f"{name}:{node.lineno} imports its sibling {target}"


def test_no_import_cycles() -> None:
    edges: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        edges[name] = {
            ours
            for target, node in imports(name, tree)
            if (ours := own(target)) is not None and ours != name and node.col_offset == 0
        }
    state: dict[str, int] = {}
    trail: list[str] = []

    def visit(name: str) -> None:
        state[name] = 1
        trail.append(name)
        for following in sorted(edges[name]):
            if state.get(following) == 1:
                raise AssertionError("cycle: " + " → ".join([*trail[trail.index(following) :], following]))
            if following not in state:
                visit(following)
        trail.pop()
        state[name] = 2

    sys.setrecursionlimit(10_000)
    for name in sorted(edges):
        if name not in state:
            visit(name)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("name", MODULES)
def test_no_import_of_ours_hides_in_a_function(name: str) -> None:
    for function in functions(TREES[name]):
        for target, node in imports(name, function):
            assert own(target) is None, f"{name}:{node.lineno} hides the import of {target}"


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_has_one_owner(package: str) -> None:
    for name, tree in TREES.items():
        for target, node in imports(name, tree):
            if target.split(".")[0] == package:
                allowed = any(within(name, owner) for owner in OWNERS[package])
                assert allowed, f"{name}:{node.lineno} imports {package}, which belongs to {OWNERS[package]}"


@pytest.mark.parametrize("name", MODULES)
def test_sizes(name: str) -> None:
    lines = len(MODULES[name].read_text("utf-8").splitlines())
    limit = COMMAND_MAX if within(name, "cli.commands") else FILE_MAX
    assert lines <= limit, f"{name} has {lines} lines, {limit} are allowed: split it by noun"
    for function in functions(TREES[name]):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_MAX, f"{name}.{function.name} has {length} lines"


@pytest.mark.parametrize("path", NATIVE, ids=lambda path: path.name)
def test_native_files_are_held_to_the_same_size(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= FILE_MAX, f"{path.name} has {lines} lines, {FILE_MAX} are allowed: split it by noun"


def test_every_native_file_is_built_and_rebuilt() -> None:
    """What the build knows neither as a source nor as what one depends on is not compiled, or not again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    known: set[str] = set()
    for module in project["tool"]["setuptools"]["ext-modules"]:
        known.update(module["sources"], module.get("depends", ()))
        found = {ROOT / name for name in module["sources"]}
        while new := {file for path in found for file in included(path)} - found:
            found |= new
        beside = found - {ROOT / name for name in module["sources"]}
        assert beside == {ROOT / name for name in module.get("depends", ())}, module["name"]
    assert known == {path.relative_to(ROOT).as_posix() for path in NATIVE}
    patterns = re.findall(r"\S+\[ch\]", (ROOT / "dev").read_text("utf-8"))
    assert known == {p.relative_to(ROOT).as_posix() for pattern in patterns for p in ROOT.glob(pattern)}


def included(path: Path) -> set[Path]:
    """Return the headers of ours that a native file includes."""
    return {path.parent / name for name in re.findall(r'#include "([^"]+)"', path.read_text("utf-8"))}


def test_names_say_what_a_module_owns() -> None:
    for name in MODULES:
        assert not FORBIDDEN_NAMES & set(name.split(".")), f"{name} names a drawer, not a thing"


@pytest.mark.parametrize("name", [n for n in MODULES if not within(n, "cli")])
def test_the_environment_is_read_by_the_front_end_only(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in {"environ", "getenv", "environb"}, (
                f"{name}:{node.lineno} reads the environment"
            )


@pytest.mark.parametrize("name", [n for n in MODULES if n != "dedupstore.clock" and not within(n, "cli")])
def test_time_and_chance_come_from_the_clock(name: str) -> None:
    for target, node in imports(name, TREES[name]):
        top = target.split(".")[0]
        assert top not in {"time", "random", "secrets", "uuid"}, f"{name}:{node.lineno} imports {top}"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            assert pair not in {("datetime", "now"), ("datetime", "utcnow"), ("os", "urandom")}, (
                f"{name}:{node.lineno} uses {'.'.join(pair)}"
            )


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_owns(name: str) -> None:
    if MODULES[name].read_text("utf-8").strip():
        assert ast.get_docstring(TREES[name]), f"{name} has no docstring"


def test_nothing_shipped_imports_the_testing_tools() -> None:
    for name, tree in TREES.items():
        if within(name, "dedupstore.testing"):
            continue
        for target, node in imports(name, tree):
            assert not within(target, "dedupstore.testing"), f"{name}:{node.lineno} imports {target}"
