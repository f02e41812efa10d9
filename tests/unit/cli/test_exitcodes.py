import inspect
import re
from pathlib import Path

import pytest

from cli import exitcodes
from dedupstore import errors
from dedupstore.errors import DedupstoreError
from dedupstore.findings import Finding

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, DedupstoreError) and value.__module__ == errors.__name__
]


def test_the_table_is_total_and_names_nothing_else() -> None:
    assert set(exitcodes.STATUS) == set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_subclass_from_a_plugin_counts_as_its_base(kind: type[DedupstoreError]) -> None:
    class Special(kind):  # type: ignore[misc,valid-type]
        pass

    assert exitcodes.status_of(Special("x")) == exitcodes.STATUS[kind]


def test_the_statuses_that_scripts_rely_on() -> None:
    expected = {
        errors.UsageError: 2,
        errors.IntegrityError: 4,
        errors.ChunkDamaged: 4,
        errors.RepositoryNotFound: 10,
        errors.RepositoryBusy: 11,
        errors.SessionFenced: 11,
        errors.WrongPassphrase: 12,
        errors.Interrupted: 130,
    }
    assert {kind: exitcodes.status_of(kind("x")) for kind in expected} == expected


def test_findings_damage_outweighs_failure_outweighs_unreadable_sources() -> None:
    source = Finding("/a", errors.SourceVanished("gone"))
    target = Finding("/b", errors.TargetError("full"))
    damage = Finding("/c", errors.ChunkDamaged("bad"))
    assert exitcodes.status_of_findings([]) == 0
    assert exitcodes.status_of_findings([source]) == 3
    assert exitcodes.status_of_findings([source, target]) == 1
    assert exitcodes.status_of_findings([target, source]) == 1
    assert exitcodes.status_of_findings([source, damage, target]) == 4


def test_the_statuses_are_the_documented_ones() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    documented = {int(found) for found in re.findall(r"^\| (\d+) \|", manual, re.MULTILINE)}
    assert documented == set(exitcodes.STATUS.values()) | {exitcodes.DONE, exitcodes.INCOMPLETE}
