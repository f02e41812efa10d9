"""The proof of a log finds what does not fit, names it, and finds nothing where all is well."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dedupstore.documents.timeline import Timeline
from dedupstore.documents.verify_replay import ReplayResult, links, verify_replay
from dedupstore.errors import IntegrityError
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.definitions import ID_INDEX
from tests.support.repos import create
from tests.unit.documents.dump_samples import Tables
from tests.unit.documents.log_samples import cut, store
from tests.unit.documents.operations import (
    INFO,
    ORDERS,
    OTHER,
    deleted,
    inserted,
    marked,
    noop,
    order,
    put_log,
    put_shop,
    renamed,
    span,
    ts,
)

CAPPED = raw.document([(b"capped", raw.BOOL, b"\1"), (b"size", raw.INT32, raw.int32(4096))])
LOG = [noop(0), marked(1, 1, 5), inserted(2, order(3)), deleted(3, 2), noop(4)]
BEFORE = [(INFO, [order(1), order(2)]), (OTHER, [order(7)])]
AFTER = [(INFO, [order(1, 5), order(3)]), (OTHER, [order(7)])]


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with create(MemoryStore(), tmp_path / "cache") as made:
        yield made


def proof(
    repo: Repository, after: Tables, *, before: Tables = BEFORE, log: Sequence[bytes] = LOG
) -> ReplayResult:
    first = put_shop(repo, before, span(0))
    put_shop(repo, after, span(4), last=first)
    put_log(repo, log)
    return verify_replay(repo, Timeline(repo, repo.snapshots()))


def only_finding(result: ReplayResult) -> str:
    assert not result.proven
    (finding,) = result.findings
    assert isinstance(finding.error, IntegrityError)
    assert finding.where in finding.error.message
    return finding.error.message


def test_a_chain_that_fits_is_proven(repo: Repository) -> None:
    result = proof(repo, AFTER)
    assert not result.findings
    assert len(result.proven) == 1
    assert (result.entries, result.collections) == (5, 2)


def test_what_the_log_does_not_touch_is_not_read(repo: Repository) -> None:
    many = [order(n) for n in range(20_000)]
    result = proof(
        repo,
        [(INFO, [order(1, 5), *many[2:]])],
        before=[(INFO, many[1:])],
        log=[noop(0), marked(1, 1, 5), noop(4)],
    )
    assert not result.findings
    assert result.leaves > 50
    assert result.leaves_cut <= 2


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([order(1, 6), order(3)], "_id 1 has other fields"),
        ([order(1, 5)], "_id 3 is not there in the later one"),
        ([order(1, 5), order(2), order(3)], "does not tell of the document with the _id 2"),
        ([], "_id 1 is not there in the later one"),
    ],
)
def test_the_first_document_that_does_not_fit_is_named(
    repo: Repository, documents: list[bytes], words: str
) -> None:
    assert words in only_finding(proof(repo, [(INFO, documents), AFTER[1]]))


def test_a_difference_in_what_was_not_touched_is_found_too(repo: Repository) -> None:
    assert "shop.users" in only_finding(proof(repo, [AFTER[0], (OTHER, [order(7, 1)])]))


def test_collections_that_should_be_there_or_not_are_named(repo: Repository) -> None:
    assert "is not there in the later one" in only_finding(proof(repo, AFTER[:1]))


def test_a_collection_that_came_from_nowhere_is_named(repo: Repository) -> None:
    third = CollectionInfo("shop", "third", uuid=b"3" * 16, indexes=(ID_INDEX,))
    assert "shop.third" in only_finding(proof(repo, [*AFTER, (third, [])]))


def test_indexes_and_options_count_but_not_their_order(repo: Repository) -> None:
    extra = raw.document(
        [
            (b"v", raw.INT32, raw.int32(2)),
            (b"key", raw.OBJECT, raw.EMPTY),
            (b"name", raw.STRING, raw.string("x")),
        ]
    )
    turned = raw.document(
        [
            (b"name", raw.STRING, raw.string("x")),
            (b"v", raw.INT32, raw.int32(2)),
            (b"key", raw.OBJECT, raw.EMPTY),
        ]
    )
    before = [(replace(INFO, indexes=(ID_INDEX, extra)), [order(1)])]
    result = proof(
        repo, [(replace(INFO, indexes=(turned, ID_INDEX)), [order(1)])], before=before, log=[noop(0), noop(4)]
    )
    assert not result.findings


def test_other_indexes_are_found(repo: Repository) -> None:
    assert "indexes" in only_finding(proof(repo, [(replace(INFO, indexes=()), AFTER[0][1]), AFTER[1]]))


def test_a_renamed_collection_fits_under_its_new_name(repo: Repository) -> None:
    log = [noop(0), renamed(1, "orders", "old"), noop(4)]
    result = proof(repo, [(replace(INFO, name="old"), [order(1)])], before=[(INFO, [order(1)])], log=log)
    assert not result.findings
    assert result.leaves_cut == 0


def test_of_a_capped_collection_what_both_have_must_be_the_same(repo: Repository) -> None:
    info = replace(INFO, options=CAPPED)
    log = [noop(0), inserted(1, order(9)), inserted(2, order(4)), noop(4)]
    before = [(info, [order(5), order(1)])]
    result = proof(repo, [(info, [order(1), order(9), order(4)])], before=before, log=log)
    assert not result.findings


def test_another_order_in_a_capped_collection_is_found(repo: Repository) -> None:
    info = replace(INFO, options=CAPPED)
    log = [noop(0), inserted(1, order(9)), inserted(2, order(4)), noop(4)]
    before = [(info, [order(5), order(1)])]
    assert "order of insertion" in only_finding(
        proof(repo, [(info, [order(1), order(4), order(9)])], before=before, log=log)
    )


def test_a_log_that_can_not_be_replayed_is_a_finding(repo: Repository) -> None:
    result = proof(repo, AFTER, log=[noop(0), marked(1, 77, 5), noop(4)])
    (finding,) = result.findings
    assert "77" in finding.error.message


def test_between_snapshots_of_one_moment_there_is_nothing_to_replay(repo: Repository) -> None:
    first = put_shop(repo, BEFORE, span(0))
    put_shop(repo, BEFORE, span(0), last=first)
    result = verify_replay(repo, Timeline(repo, repo.snapshots()))
    assert (len(result.proven), result.holes, result.findings) == (1, [], [])


def test_other_documents_at_one_moment_are_found(repo: Repository) -> None:
    first = put_shop(repo, BEFORE, span(0))
    put_shop(repo, AFTER, span(0), last=first)
    assert verify_replay(repo, Timeline(repo, repo.snapshots())).findings


def test_a_hole_is_said_and_proves_nothing(repo: Repository) -> None:
    first = put_shop(repo, BEFORE, span(0))
    put_shop(repo, AFTER, span(4), last=first)
    store(repo, cut([noop(0), noop(1)], None))
    store(repo, cut([noop(3), noop(4)], None))
    line = Timeline(repo, repo.snapshots())
    (link,) = links(line)
    assert "not whole" in link.hole
    result = verify_replay(repo, line)
    assert (result.proven, result.findings, result.holes) == ([], [], [link])


def test_a_read_of_no_single_moment_is_compared_as_of_its_end(repo: Repository) -> None:
    first = put_shop(repo, BEFORE, span(0))
    put_shop(repo, [(INFO, [order(1, 5), order(2)]), AFTER[1]], span(1, 4), last=first)
    put_log(repo, LOG)
    line = Timeline(repo, repo.snapshots())
    result = verify_replay(repo, line)
    assert not result.findings
    assert result.proven == [(line.bases[0].id, line.bases[1].id)]
    assert line.bases[1].end == ts(4)


def test_leaves_cut_by_another_rule_are_compared_all_the_same(repo: Repository) -> None:
    """Of another width of documents at first, so with another ``k``."""
    before = [(INFO, [order(n, size=2000) for n in range(200)])]
    log = [
        noop(0),
        *(deleted(1, n) for n in range(200)),
        *(inserted(2, order(n)) for n in range(3000)),
        noop(4),
    ]
    put_shop(repo, before, span(0))
    put_shop(repo, [(INFO, [order(n) for n in range(3000)])], span(4))  # chosen anew
    put_log(repo, log)
    result = verify_replay(repo, Timeline(repo, repo.snapshots()))
    assert not result.findings
    assert result.leaves == result.leaves_cut
    assert INFO.uuid == ORDERS
