"""Patterns and renamings of collections."""

import pytest

from dedupstore.errors import UsageError
from dedupstore.ops.export.names import Renaming, Selection, check_db


@pytest.mark.parametrize(
    ("include", "exclude", "yes", "no"),
    [
        ([], [], ["a.b", "x.y.z"], []),
        (["a"], [], ["a.b", "a.b.c"], ["ab.c", "b.a"]),
        (["a.b"], [], ["a.b"], ["a.bc", "a.b.c", "x.a.b"]),
        (["a.b*"], [], ["a.b", "a.bcd", "a.b.c"], ["a.c", "ab.b"]),
        (["*.users"], [], ["a.users", "b.users"], ["a.b.users", "a.user"]),
        (["sh*"], ["shop.tmp*"], ["shop.a", "sh.tmp"], ["shop.tmp", "shop.tmp.x", "a.shop"]),
        ([], ["a", "b.c"], ["b.d"], ["a.a", "b.c"]),
        (["a.x\ny"], [], ["a.x\ny"], ["a.x"]),
    ],
)
def test_selection(include: list[str], exclude: list[str], yes: list[str], no: list[str]) -> None:
    selection = Selection.of(include, exclude)
    for names, wanted in ((yes, True), (no, False)):
        for whole in names:
            db, _, name = whole.partition(".")
            assert selection.wants(db, name) is wanted, whole


@pytest.mark.parametrize(
    ("rules", "before", "after"),
    [
        (["a=b"], ("a", "x.y"), ("b", "x.y")),
        (["a.*=b.*"], ("a", "x"), ("b", "x")),
        (["a.x=a.y"], ("a", "x"), ("a", "y")),
        (["a.x=a.y"], ("a", "xx"), ("a", "xx")),
        (["a.*_old=b.kept_*"], ("a", "users_old"), ("b", "kept_users")),
        (["*.*=all.*-*"], ("a", "x.y"), ("all", "a-x.y")),
        (["a.x=b.z", "a.*=c.*"], ("a", "x"), ("b", "z")),
        (["a.x=b.z", "a.*=c.*"], ("a", "w"), ("c", "w")),
    ],
)
def test_renaming(rules: list[str], before: tuple[str, str], after: tuple[str, str]) -> None:
    assert Renaming.of(rules).apply(*before) == after


@pytest.mark.parametrize("text", ["", "a", "a=", "a.*=b.x", "a.x=b", "a=b.c", ".x=a.b"])
def test_bad_renaming(text: str) -> None:
    with pytest.raises(UsageError):
        Renaming.of([text])


@pytest.mark.parametrize("pattern", ["", ".a"])
def test_bad_pattern(pattern: str) -> None:
    with pytest.raises(UsageError):
        Selection.of([pattern])


@pytest.mark.parametrize("rule", ["a.*=../x.*", "a.*=b c.*", "a.x=b$.y", "a.x=" + "d" * 64 + ".y"])
def test_renaming_to_an_impossible_name(rule: str) -> None:
    with pytest.raises(UsageError):
        Renaming.of([rule]).apply("a", "x")


@pytest.mark.parametrize("db", ["", ".", "..", "a/b", "a\0b", "x" * 64])
def test_impossible_database(db: str) -> None:
    with pytest.raises(UsageError):
        check_db(db)


def test_possible_database() -> None:
    assert check_db("étoile-1") == "étoile-1"
