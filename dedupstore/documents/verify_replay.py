"""Proof that a log can be replayed: a snapshot and the log behind it must give the next snapshot.

No server is asked. Collections that the log does not touch, and leaves into which no change falls, are
compared by their ids and not read; the others are cut as the later snapshot is cut, and their ids compared.
Only where ids differ are documents looked at, to name the first that is not what it should be.

A finding is no damage of the store: the snapshots are what was read. It says that a time between the two
would be restored wrongly, since the log does not tell all that happened, or a snapshot was read wrongly.

One thread. Memory: that of `replay`, and of one `LeafPatch`; for a capped collection 8 bytes a document.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path

from dedupstore.documents.leafpatch import Fresh, Leaf, LeafPage
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.moments import Moment
from dedupstore.documents.parts import leaf_patch
from dedupstore.documents.replay import replay_choice
from dedupstore.documents.replayed import ReplayedCollection, ReplayedView
from dedupstore.documents.runs import Run
from dedupstore.documents.stored import StoredCollection, StoredDump
from dedupstore.documents.timeline import Base, Timeline, serves
from dedupstore.documents.view import CollectionView
from dedupstore.errors import IntegrityError, SourceError
from dedupstore.findings import Finding
from dedupstore.ids import SnapshotId, short
from dedupstore.model import ChunkKind
from dedupstore.progress import NullReporter, Reporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.extjson import shown_value
from dedupstore.sources.bson.leaves import LEAF_MAX, LeafCutter
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.namespaces import VIEWS, followed


@dataclass(frozen=True, slots=True)
class Link:
    """Two snapshots, one after the other, and whether the log between them is there."""

    base: Base
    following: Base
    hole: str
    """Why it can not be replayed from one to the other; empty if it can."""


@dataclass
class ReplayResult:
    """What was proven, and what was not."""

    proven: list[tuple[SnapshotId, SnapshotId]] = field(default_factory=list)
    """Snapshots of which the later one is what the earlier one and the log give."""
    holes: list[Link] = field(default_factory=list)
    """Snapshots between which the log is not whole."""
    entries: int = 0
    """Log entries that were replayed."""
    collections: int = 0
    leaves: int = 0
    """Leaves of later snapshots that were compared."""
    leaves_cut: int = 0
    """Those of them that had to be put together from documents; the others were the same without reading."""
    findings: list[Finding] = field(default_factory=list)


def links(timeline: Timeline) -> list[Link]:
    """Return each snapshot with the next one, in order of time."""
    found = []
    for base, following in zip(timeline.bases, timeline.bases[1:], strict=False):
        if covered_differently(base, following):
            hole = "they are of different collections"
        elif base.span.exact and following.span.exact and base.end == following.end:
            hole = ""  # nothing lies between
        elif any(serves(base, run) and _reaches(following, run) for run in timeline.runs):
            hole = ""
        else:
            hole = f"the log from {base.span.first.ts} to {following.end} is not whole"
        found.append(Link(base, following, hole))
    return found


def covered_differently(base: Base, following: Base) -> bool:
    """Say whether two snapshots were not meant to hold the same collections."""
    only = [one.snapshot.source.options.get("only", "") for one in (base, following)]
    return only[0] != only[1]


def verify_replay(
    repo: Repository,
    timeline: Timeline,
    *,
    chain: Sequence[Link] | None = None,
    spill: Path | None = None,
    report: Reporter | None = None,
) -> ReplayResult:
    """Replay the log from each snapshot to the next one and compare.

    ``chain``: the pairs of interest (``None``: all of `links`). A difference is a finding that names the
    collection, the first document and the two snapshots; so is a log that can not be replayed. Raises
    `StoreError` and `AccessError`.
    """
    report = report or NullReporter()
    result = ReplayResult()
    pairs = links(timeline) if chain is None else chain
    report.started("replay", len(pairs), None)
    for link in pairs:
        if link.hole:
            result.holes.append(link)
        else:
            found = _Comparison(repo, timeline, link, result, spill).run()
            for finding in found:
                report.finding(finding.where, finding.error)
            result.findings += found
            if not found:
                result.proven.append((link.base.id, link.following.id))
        report.advanced(1, 0)
    report.finished(result)
    return result


def _reaches(following: Base, run: Run) -> bool:
    """Say whether a run goes on to the end of a snapshot, and makes it exact if it is not."""
    if following.span.exact:
        return run.start.ts <= following.end <= run.end.ts
    return serves(following, run)


class _Comparison:
    """One link."""

    def __init__(
        self, repo: Repository, timeline: Timeline, link: Link, result: ReplayResult, spill: Path | None
    ) -> None:
        self._repo = repo
        self._timeline = timeline
        self._link = link
        self._result = result
        self._spill = spill
        self._leaves = leaves_of(repo)

    def run(self) -> list[Finding]:
        base, following = self._link.base, self._link.following
        where = f"snapshots {short(base.id)} to {short(following.id)}"
        try:
            with self._view(base) as left:
                self._result.entries += left.collapsed.entries
                if following.span.exact:
                    right = StoredDump(self._repo, following.snapshot)
                    return self._compare(left, right.collections())
                with self._view(following) as replayed:
                    return self._compare(left, replayed.collections())
        except (SourceError, IntegrityError) as error:
            return [Finding(where, error)]

    def _view(self, base: Base) -> ReplayedView:
        """Return a snapshot as of the end of the later one."""
        moment = Moment.upto(self._link.following.end)
        choice = self._timeline.choose(moment, covers=lambda snapshot: snapshot is base.snapshot)
        return replay_choice(self._repo, choice, spill=self._spill)

    def _compare(self, left: ReplayedView, right: Sequence[CollectionView]) -> list[Finding]:
        found: list[Finding] = []
        expected = {(info.db, info.name): one for one in right if _is_followed(info := one.info)}
        for one in left.collections():
            other = expected.pop((one.info.db, one.info.name), None)
            self._result.collections += 1
            if other is None:
                found.append(self._finding(one.info.namespace, "it is not there in the later one"))
                continue
            how = _differs(one.info, other.info) or self._documents_differ(one, other)
            if how:
                found.append(self._finding(one.info.namespace, how))
        missing = "the log does not tell of it"
        return [*found, *(self._finding(other.info.namespace, missing) for other in expected.values())]

    def _finding(self, namespace: str, how: str) -> Finding:
        base, following = self._link.base, self._link.following
        return Finding(
            namespace,
            IntegrityError(
                f"{namespace} of snapshot {short(base.id)} with the log up to {following.end} is not that of "
                f"snapshot {short(following.id)}: {how}; what is restored of it as of a time between the two "
                "may be wrong, restore a snapshot instead"
            ),
        )

    def _documents_differ(self, one: ReplayedCollection, other: CollectionView) -> str:
        if one.natural:
            return _tails_differ(one.documents(), other.documents())
        if isinstance(other, StoredCollection) and not other.natural and other.facts is not None:
            return self._leaves_differ(one, other, other.facts.k)
        return _first_difference(one.documents(), other.documents())

    def _leaves_differ(self, one: ReplayedCollection, other: StoredCollection, k: int) -> str:
        """Compare leaf by leaf; return what is wrong with the first document that is not the same."""
        base, stored = one.base, other.files.data
        assert stored is not None
        if base is not None and base.files.data is not None and not one.touched:
            mine = base.files.data
            if (mine.content, mine.depth, mine.size) == (stored.content, stored.depth, stored.size):
                return ""
        leaves = other.leaves()
        for mine_leaf, leaf in zip_longest(self._cut(one, k), leaves):
            self._result.leaves += leaf is not None
            self._result.leaves_cut += isinstance(mine_leaf, Fresh)
            if leaf is None or mine_leaf is None or not self._same(mine_leaf, leaf):
                return _first_difference(one.documents(), other.documents())
        return ""

    def _cut(self, one: ReplayedCollection, k: int) -> Iterator[Leaf | Fresh]:
        base = one.base
        if base is None or base.facts is None or one.discarded or base.natural or base.facts.k != k:
            return _cut_anew(one.documents(), self._leaves, k)
        leaves = leaf_patch(one, self._leaves, k).leaves()
        return (leaf for leaf in leaves if not isinstance(leaf, LeafPage))  # of which it is given none

    def _same(self, mine: Leaf | Fresh, leaf: Leaf) -> bool:
        if isinstance(mine, Fresh):
            return self._repo.keychain.names(ChunkKind.DATA, mine.data, leaf[0])
        return mine[0] == leaf[0]


def _is_followed(info: CollectionInfo) -> bool:
    return info.name != VIEWS and followed(info.db, info.name)


def _cut_anew(documents: Iterable[bytes], leaves: Leaves, k: int) -> Iterator[Fresh]:
    """Cut all documents of a collection."""
    cutter = LeafCutter(leaves.key, k=k, max_size=leaves.max_size)
    window: list[bytes] = []
    size = 0
    for document in documents:
        window.append(document)
        size += len(document)
        if size >= 4 * LEAF_MAX:
            data = b"".join(window)
            fresh, rest = _pieces(data, cutter.cuts(memoryview(data), final=False))
            yield from fresh
            window, size = [rest], len(rest)
    data = b"".join(window)
    yield from _pieces(data, cutter.cuts(memoryview(data), final=True))[0]


def _pieces(data: bytes, ends: list[tuple[int, bytes]]) -> tuple[list[Fresh], bytes]:
    start, found = 0, []
    for end, label in ends:
        found.append(Fresh(label, data[start:end]))
        start = end
    return found, data[start:]


def _first_difference(mine: Iterator[bytes], theirs: Iterator[bytes]) -> str:
    """Compare documents in order of ``_id``; empty if they are all the same."""
    for one, other in zip_longest(mine, theirs):
        if one == other:
            continue
        keys = [None if document is None else sort_key(raw.id_of(document)) for document in (one, other)]
        if keys[0] == keys[1]:
            return f"the document with the _id {_shown(one)} has other fields"
        if other is None or (keys[0] is not None and keys[1] is not None and keys[0] < keys[1]):
            return f"the document with the _id {_shown(one)} is not there in the later one"
        return f"the log does not tell of the document with the _id {_shown(other)}"
    return ""


def _shown(document: bytes | None) -> str:
    return "" if document is None else shown_value(raw.id_of(document))


def _tails_differ(mine: Iterator[bytes], theirs: Iterator[bytes]) -> str:
    """Compare what both have at the end: servers drop the oldest documents of capped collections unlogged."""
    one, other = ([blake2b(document, digest_size=8).digest() for document in side] for side in (mine, theirs))
    size = min(len(one), len(other))
    if one[len(one) - size :] == other[len(other) - size :] and bool(one) == bool(other):
        return ""
    return f"the last {size} documents in order of insertion are not the same"


def _differs(one: CollectionInfo, other: CollectionInfo) -> str:
    """Say what differs in what is known of a collection; the order of options counts for nothing."""
    if (one.kind, one.uuid) != (other.kind, other.uuid):
        return "it is another collection of the same name"
    if _fields(one.options) != _fields(other.options):
        return "its options are not the same"
    if {_fields(spec) for spec in one.indexes} != {_fields(spec) for spec in other.indexes}:
        return "its indexes are not the same"
    return ""


def _fields(document: bytes) -> frozenset[tuple[bytes, int, bytes]]:
    return frozenset((name, kind, document[start:end]) for name, kind, start, end in raw.elements(document))
