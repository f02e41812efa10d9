import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import UsageError
from dedupstore.sources.patterns import PatternSet, escape


def excluded(line: bytes, path: bytes, *, is_dir: bool = False, roots: tuple[bytes, ...] = (b"/r",)) -> bool:
    return PatternSet([line], roots).excluded(path, is_dir)


@pytest.mark.parametrize(
    ("line", "inside", "outside"),
    [
        (b"name", [b"/r/name", b"/r/a/b/name"], [b"/r/names", b"/r/name/x"]),
        (b"*.o", [b"/r/x.o", b"/r/a/.o"], [b"/r/x.oo", b"/r/x.o/y"]),
        (b"a?c", [b"/r/abc", b"/r/a\nc", b"/r/a\xffc"], [b"/r/ac", b"/r/abbc", "/r/aäc".encode()]),
        (b"a/b", [b"/r/a/b"], [b"/a/b", b"/r/x/a/b"]),
        (b"/a/b", [b"/r/a/b", b"/a/b"], [b"/r/x/a/b"]),
        (b"/a", [b"/r/a", b"/a"], [b"/r/x/a"]),
        (b"/r/a", [b"/r/a", b"/r/r/a"], [b"/r/x/r/a"]),
        (b"**/a", [b"/r/a", b"/r/x/a", b"/r/x/y/a"], [b"/r/xa", b"/a"]),
        (b"**/a/b", [b"/r/a/b", b"/r/x/a/b"], [b"/r/a/x/b"]),
        (b"a/**", [b"/r/a/b", b"/r/a/b/c"], [b"/r/a", b"/r/b/a/c"]),
        (b"a/**/b", [b"/r/a/b", b"/r/a/x/b", b"/r/a/x/y/b"], [b"/r/ab", b"/r/a/xb"]),
        (b"a/**/b/**/c", [b"/r/a/b/c", b"/r/a/b/x/b/y/c"], [b"/r/a/c", b"/r/a/b"]),
        (b"a/*/b", [b"/r/a/x/b"], [b"/r/a/b", b"/r/a/x/y/b"]),
        (b"a/*", [b"/r/a/x"], [b"/r/a/x/y", b"/r/a"]),
        (b"**", [b"/r/a", b"/r/a/b"], []),
        (b"/**", [b"/r/a", b"/r/a/b", b"/b"], []),
        (b"a**b", [b"/r/ab", b"/r/axxb", b"/r/x/ab"], [b"/r/a/b"]),
        (b"[a-c]x", [b"/r/ax", b"/r/cx"], [b"/r/dx", b"/r/-x"]),
        (b"[!a-c]x", [b"/r/dx", b"/r/\xffx"], [b"/r/ax"]),
        (b"[^a]", [b"/r/b"], [b"/r/a"]),
        (b"[]-]", [b"/r/]", b"/r/-"], [b"/r/a"]),
        (b"[!]a]", [b"/r/b"], [b"/r/]", b"/r/a"]),
        (b"[a\\]b]", [b"/r/]", b"/r/b"], [b"/r/\\"]),
        (b"[[:digit:]x]", [b"/r/0", b"/r/x"], [b"/r/:", b"/r/d"]),
        (b"[\xe0-\xff]", [b"/r/\xe4"], [b"/r/\xdf"]),
        (b"\\*", [b"/r/*"], [b"/r/a"]),
        (b"\\#a", [b"/r/#a"], [b"/r/a"]),
        (b"\\!a", [b"/r/!a"], [b"/r/a"]),
        (b"a\\ ", [b"/r/a "], [b"/r/a"]),
        (b"a  ", [b"/r/a"], [b"/r/a  "]),
        (b"a\\\\ ", [b"/r/a\\"], [b"/r/a\\ "]),
        (b" a", [b"/r/ a"], [b"/r/a"]),
        (b"//a//b", [b"/r/a/b", b"/a/b"], [b"/r/b"]),
        (b"\xff\xfe*", [b"/r/\xff\xfe", b"/r/\xff\xfe\xfd"], [b"/r/\xfe"]),
        (b"a.b+(c)|d^$", [b"/r/a.b+(c)|d^$"], [b"/r/axb"]),
        (b"...", [b"/r/..."], [b"/r/.."]),
    ],
)
def test_what_a_pattern_means(line: bytes, inside: list[bytes], outside: list[bytes]) -> None:
    assert [path for path in inside if not excluded(line, path)] == []
    assert [path for path in outside if excluded(line, path)] == []


@pytest.mark.parametrize("line", [b"a/", b"/a/", b"/r/a/", b"**/a/"])
def test_a_slash_at_the_end_means_folders_only(line: bytes) -> None:
    assert excluded(line, b"/r/a", is_dir=True)
    assert not excluded(line, b"/r/a")


def test_every_root_is_one() -> None:
    patterns = PatternSet([b"a/b", b"/c"], [b"/r", b"/s/t"])
    for path in (b"/r/a/b", b"/s/t/a/b", b"/r/c", b"/s/t/c", b"/c"):
        assert patterns.excluded(path, is_dir=False), path
    for path in (b"/s/a/b", b"/a/b", b"/s/c"):
        assert not patterns.excluded(path, is_dir=False), path


def test_the_machine_as_a_root() -> None:
    patterns = PatternSet([b"/proc", b"var/cache"], [b"/"])
    assert patterns.excluded(b"/proc", is_dir=True)
    assert patterns.excluded(b"/var/cache", is_dir=True)
    assert not patterns.excluded(b"/x/proc", is_dir=True)


def test_the_last_pattern_that_matches_decides() -> None:
    patterns = PatternSet([b"*.log", b"!keep.log", b"old/", b"keep.log/"])
    assert patterns.excluded(b"/a.log", is_dir=False)
    assert not patterns.excluded(b"/keep.log", is_dir=False)
    assert patterns.excluded(b"/keep.log", is_dir=True)
    assert patterns.excluded(b"/old", is_dir=True)


def test_what_lies_in_an_excluded_folder_is_excluded() -> None:
    patterns = PatternSet([b"cache/", b"!cache/keep", b"/r"], [b"/r", b"/r/cache/root"])
    assert patterns.excluded_within(b"/r/a/cache/x/y", is_dir=False)
    assert patterns.excluded_within(b"/r/cache/keep", is_dir=False)
    assert not patterns.excluded_within(b"/r/a/b", is_dir=False)
    assert not patterns.excluded_within(b"/r", is_dir=True)
    assert not PatternSet([b"*"]).excluded_within(b"/", is_dir=True)


@pytest.mark.parametrize(
    "line",
    [
        b"/",
        b"//",
        b"!",
        b"!/",
        b"./a",
        b"a/..",
        b"a/./b",
        b"a\\",
        b"[a",
        b"[",
        b"[]",
        b"[[:what:]]",
        b"[!\x01-\xff\x00]",
    ],
)
def test_a_pattern_that_can_match_nothing_is_refused(line: bytes) -> None:
    with pytest.raises(UsageError, match=r"^the pattern .*: correct it or leave it out$") as caught:
        PatternSet([line])
    assert caught.value.data["pattern"] == line


def test_an_exclude_file_is_lines() -> None:
    content = b"\xef\xbb\xbf# comment\r\n*.o\r\n\n  \n!keep \n\\#name\nlast"
    assert PatternSet.parse(content) == (b"*.o", b"!keep ", b"\\#name", b"last")
    assert PatternSet.parse(b"") == ()


def test_comments_and_blank_lines_exclude_nothing() -> None:
    assert not PatternSet([b"# a", b"", b"   "]).excluded(b"/# a", is_dir=False)


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"\0" not in name and b"/" not in name and name not in {b".", b".."}
)


@given(names, names)
def test_an_escaped_name_means_itself_alone(name: bytes, other: bytes) -> None:
    patterns = PatternSet([escape(name)], [b"/"])
    assert patterns.excluded(b"/a/" + name, is_dir=False)
    assert patterns.excluded(b"/" + other, is_dir=False) == (other == name)


def matches(pattern: bytes, path: bytes) -> bool:
    """The rules for anchored patterns of literals, ``*``, ``?`` and ``**``, as slow as they are plain."""

    def name_matches(glob: bytes, name: bytes) -> bool:
        if not glob:
            return not name
        if glob[:1] == b"*":
            return name_matches(glob[1:], name) or (bool(name) and name_matches(glob, name[1:]))
        return bool(name) and glob[:1] in {b"?", name[:1]} and name_matches(glob[1:], name[1:])

    def parts_match(globs: list[bytes], parts: list[bytes]) -> bool:
        if not globs:
            return not parts
        if globs[0] == b"**":
            if len(globs) == 1:
                return bool(parts)
            return parts_match(globs[1:], parts) or (bool(parts) and parts_match(globs, parts[1:]))
        return bool(parts) and name_matches(globs[0], parts[0]) and parts_match(globs[1:], parts[1:])

    return parts_match(pattern.split(b"/"), path.split(b"/"))


globs = st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=6).filter(lambda t: "**" not in t))
anchored = st.lists(globs, min_size=2, max_size=5).map(lambda parts: "/".join(parts).encode())
paths = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=6).map(
    lambda parts: "/".join(parts).encode()
)


@given(anchored, paths)
def test_expressions_do_what_the_plain_rules_say(pattern: bytes, path: bytes) -> None:
    assert excluded(pattern, b"/r/" + path) == matches(pattern, path)


def test_stars_cost_no_exponential_time() -> None:
    start = time.perf_counter()
    assert not excluded(b"*a" * 30 + b"b", b"/r/" + b"a" * 250)
    assert not excluded(b"**/a/" * 20 + b"b", b"/r/" + b"a/" * 200 + b"a")
    assert time.perf_counter() - start < 1


def test_git_ignores_the_same(tmp_path: Path) -> None:
    """Random patterns over a real tree, against git; only what we refuse on purpose is left out."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    chance = random.Random(7)
    parts = ["a", "b", "ab", "ba.o", "x y", "A", "[b]", "ä"]
    found: list[tuple[str, bool]] = []
    for first in parts:
        (tmp_path / first).mkdir()
        found.append((first, True))
        for second in parts[:5]:
            (tmp_path / first / second).mkdir()
            found.append((f"{first}/{second}", True))
            for third in parts[2:5]:
                (tmp_path / first / second / third).touch()
                found.append((f"{first}/{second}/{third}", False))
    for n in range(5):
        (tmp_path / f"a{n}.o").touch()
        found.append((f"a{n}.o", False))
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": os.fspath(tmp_path)}
    subprocess.run(["git", "init", "-q", tmp_path], check=True, env=env)
    atoms = [
        "a",
        "b",
        "ab",
        "x y",
        "*",
        "?",
        "*.o",
        "a*",
        "*b",
        "[ab]",
        "[!a]*",
        "[a-b]*",
        "\\[b]",
        "\\a",
        "ä",
        "**",
    ]
    asked = "\0".join(path for path, _ in found).encode()
    root = os.fsencode(tmp_path)
    for _ in range(300):
        lines = []
        for _ in range(chance.choice([1, 1, 2, 4])):
            line = "/".join(chance.choice(atoms) for _ in range(chance.choice([1, 1, 2, 2, 3, 4])))
            line = chance.choice(["", "", "/"]) + line + chance.choice(["", "", "/", " "])
            lines.append(chance.choice(["", "", "", "!"]) + line)
        (tmp_path / ".gitignore").write_text("\n".join(lines) + "\n")
        out = subprocess.run(
            ["git", "-C", tmp_path, "check-ignore", "--no-index", "-z", "--stdin"],
            input=asked, capture_output=True, check=False, env=env,
        ).stdout  # fmt: skip
        theirs = set(out.decode().split("\0")) - {""}
        ours_set = PatternSet([line.encode() for line in lines], [root])
        ours = {
            path for path, is_dir in found if ours_set.excluded_within(root + b"/" + path.encode(), is_dir)
        }
        assert ours == theirs, lines
