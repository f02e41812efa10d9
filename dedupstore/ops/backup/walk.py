"""The walk over a source: every folder and entry, read if new, queued for the tree in path order.

One thread walks, reads and builds the tree; `pipeline` threads do the rest. A folder whose listing is what it
was in the last snapshot costs one comparison; a file whose stat record is what it was is not read.
That is trusted only while the snapshot it was learnt from still exists.

Memory: the pipeline's buffers, the write session's packs, the listings of the folders from the root to the
present one (about 100 bytes an entry), and at most `WAITING_MAX` entries whose ids are not there yet, with at
most twice `KNOWN_MAX` known chunks of patched files among them.
"""

import os
import stat
from collections.abc import Iterator
from typing import cast

from dedupstore.chunker.base import Params, make_chunker
from dedupstore.clock import Clock
from dedupstore.errors import SourceChanged, SourceError
from dedupstore.findings import Finding, printable
from dedupstore.format.tree import PageSplitter
from dedupstore.ids import ChunkId, TreeId
from dedupstore.model import Node, NodeKind, Summary
from dedupstore.ops.backup.frames import Assembly, Frame, with_subtree
from dedupstore.ops.backup.pace import Pace
from dedupstore.ops.backup.parts import Parts, known_in
from dedupstore.ops.backup.past import NOTHING, Past, Previous, RacyTimes
from dedupstore.ops.backup.pipeline import KNOWN_MAX, WHOLE_MAX, Pipeline
from dedupstore.ops.backup.sink import Sink
from dedupstore.progress import Reporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.base import LAST, Folder, Item, Patch, ReadsRuns, Source, StartAgain
from dedupstore.sources.segments import blank

AHEAD = 64
"""How many files of a new folder are asked for ahead, and once more."""
WAITING_MAX = 20_000
REPORT_FOLDERS = 64
_OTHER = Node(name=b"", kind=0)
"""Stands for an old node that no new one equals."""


class Walk:
    """One run over one source into one sink. Used once, by one thread."""

    def __init__(
        self,
        repo: Repository,
        source: Source,
        sink: Sink,
        past: Past,
        workers: int,
        report: Reporter,
        clock: Clock,
    ) -> None:
        self._source = source
        self._past = past
        self._report = report
        config, keys = repo.config, repo.keychain.current
        self._pace = Pace(clock)
        self._pipeline = Pipeline(
            sink,
            make_chunker(keys.chunker, Params(*config.chunker)),
            keys.id_data,
            sink.compression,
            config.record_size,
            config.small_file,
            self._pace,
            workers,
        )
        self._assembly = Assembly(
            repo.load_page, sink.save_page, PageSplitter(keys.names), self._remember, sink.reuse
        )
        self._racy = RacyTimes(clock.now())
        self._reuse = sink.reuse
        self.findings: list[Finding] = []
        self.files_new = 0
        self.files_changed = 0
        self.files_failed = 0
        self.uids: set[int] = set()
        self.gids: set[int] = set()
        self._reads_runs: dict[type[Folder], bool] = {}
        self._items = 0
        self._bytes = 0
        self._behind = 0
        """At most so many known chunks wait in the assembly."""

    def run(self) -> tuple[TreeId, Summary]:
        """Walk everything; return the root. Raises what the sink or an all-or-nothing source raises."""
        try:
            self._walk()
            self._pipeline.submit()
        finally:
            self._pipeline.close()
        self._pipeline.check()
        self._assembly.drain()
        self._tell()
        root = self._assembly.root
        if root is None:
            raise SourceError("nothing was found to back up; check the paths")
        return root

    def _walk(self) -> None:
        top = self._source.top()
        for path, error in self._source.absent:
            self._failed(printable(path), error)
        for tree in self._source.adopts:
            self._reuse(tree)
        root = self._enter(top, Node(name=b"", kind=NodeKind.DIR), None, trusted=self._past.valid)
        stack = [(root, self._steps(root))]
        entered = 0
        while stack:
            frame, steps = stack[-1]
            child = next(steps, None)
            if child is None:
                stack.pop()
                frame.unstable |= frame.folder.unstable
                frame.folder.close()
                self._assembly.push_leave(frame)
                self._drain()
            else:
                stack.append((child, self._steps(child)))
                entered += 1
                if entered % REPORT_FOLDERS == 0:
                    self._tell()

    def _enter(self, folder: Folder, node: Node, parent: Frame | None, *, trusted: bool) -> Frame:
        """Look at a folder and decide whether it is as it was."""
        try:
            listing = folder.listing()
        except SourceError as error:
            self._failed(printable(folder.path), error)
            return Frame(folder, node, parent, (), None, same=False, unlisted=True)
        head = self._past.same(folder.key, listing) if trusted else None
        if head is not None:
            known = TreeId(ChunkId(head.subtree)), head.summary
            return Frame(folder, node, parent, listing, known, same=True, names=list(head.folders))
        return Frame(folder, node, parent, listing, None, same=False, trusted=trusted)

    def _steps(self, frame: Frame) -> Iterator[Frame]:
        """Yield the folders to enter below ``frame``; between them, queue its other entries."""
        return self._steps_same(frame) if frame.same else self._steps_open(frame)

    def _steps_same(self, frame: Frame) -> Iterator[Frame]:
        if not frame.names:
            return
        folder = frame.folder
        for segment in frame.listing:
            for item in folder.folders(segment):
                if folder.descends(item):
                    # Its own entry is in the old page; only its name and what is below matter here.
                    node = Node(name=item.name, kind=NodeKind.DIR)
                    yield self._enter(folder.folder(item), node, frame, trusted=True)

    def _steps_open(self, frame: Frame) -> Iterator[Frame]:
        folder = frame.folder
        previous = self._past.previous(folder.key) if frame.trusted else NOTHING
        if previous.known is not None:
            frame.known = previous.known
            self._reuse(previous.known[0])  # of its entries, those that are unchanged
        for segment in frame.listing:
            items = folder.items(segment)
            if previous is NOTHING and len(items) > 1:
                self._read_runs(frame, items)
            for number, item in enumerate(items):
                if self._pace.slow and previous is NOTHING and number % AHEAD == 0:
                    folder.expect(items[number + 1 : number + 1 + 2 * AHEAD])
                if stat.S_ISDIR(item.mode):
                    child = self._folder_entry(frame, item, previous)
                    if child is not None:
                        yield child
                else:
                    self._entry(frame, item, previous)
                    if self._assembly.waiting > WAITING_MAX:
                        self._drain(wait=True)
        for item, before, place in frame.later:
            place.fill(*(self._read(frame, item, before) or (None, [])))

    def _read_runs(self, frame: Frame, items: list[Item]) -> None:
        """Read the small files of a new folder, or of a segment of it, before its entries are queued.

        Memory: a node for each, 4096 at most.
        """
        folder = frame.folder
        reads = self._reads_runs.get(type(folder))
        if reads is None:
            reads = self._reads_runs[type(folder)] = isinstance(folder, ReadsRuns)
        if reads:
            for run in self._pipeline.runs(items):
                if self._pace.slow:
                    folder.expect(run)
                read = self._pipeline.run(cast(ReadsRuns, folder), run)
                frame.read.update(zip([item.name for item in run], read, strict=True))

    def _folder_entry(self, frame: Frame, item: Item, previous: Previous) -> Frame | None:
        node = self._node(frame, item)
        if node is None:
            return None
        folder = frame.folder
        if not folder.descends(item):
            top, summary = self._assembly.empty_folder()
            self._assembly.push_node(frame, with_subtree(node, top, summary), [])
            return None
        frame.names.append(item.name)
        self._settle(frame, item)
        return self._enter(folder.folder(item), node, frame, trusted=item.name in previous.folders)

    def _entry(self, frame: Frame, item: Item, previous: Previous) -> None:
        """Queue one entry that is not a folder, reading it if it is new."""
        self._settle(frame, item)
        if frame.read and (read := frame.read.pop(item.name, None)) is not None:
            self._assembly.push_node(frame, *read)
            self._count(read[0], None)
            return
        old, before = previous.find(item)
        if old is not None:
            self._assembly.push_node(frame, old, [])
            self._items += 1
            self._bytes += old.size
            return
        if stat.S_ISREG(item.mode):
            self._file(frame, item, before)
        else:
            node = self._node(frame, item)
            if node is not None:
                self._assembly.push_node(frame, node, [])
                # Without type bits its content is that of an earlier snapshot, whatever this run remembers.
                self._count(node, before if stat.S_IFMT(item.mode) else node)

    def _settle(self, frame: Frame, item: Item) -> None:
        """Mark an entry that may change again without looking changed."""
        if item.ctime >= self._racy.earliest and self._racy.holds(item.ctime):
            frame.unstable.add(item.name)

    def _file(self, frame: Frame, item: Item, before: Node | None) -> None:
        if item.size == LAST:
            frame.later.append((item, before, self._assembly.push_place(frame)))
            return
        read = self._read(frame, item, before)
        if read is None:
            return
        self._assembly.push_node(frame, *read)
        if self._behind > KNOWN_MAX:
            self._behind = 0
            self._drain(wait=True)

    def _read(self, frame: Frame, item: Item, before: Node | None) -> tuple[Node, Parts] | None:
        """Read a regular file; None if that failed, which is noted."""
        folder = frame.folder
        try:
            whole = self._pipeline.whole(folder, item) if 0 <= item.size <= WHOLE_MAX else None
            if whole is not None:
                node, parts = whole
            else:
                node, parts, before = self._opened(frame, item, before)
        except SourceError as error:
            self._lost(frame, item.name, error)
            return None
        if item.name in folder.unstable:
            self._torn(frame, item.name)
        self._count(node, before)
        return node, parts

    def _opened(self, frame: Frame, item: Item, before: Node | None) -> tuple[Node, Parts, Node | None]:
        """Read a file through a stream or a patch; also return what it is to be compared with.

        One that asks for it is opened once more; if something is wrong with it, that is a finding.
        """
        doubt = None
        while True:
            opened = frame.folder.open(item)
            content = self._assembly.content()
            try:
                if isinstance(opened, Patch):
                    parts = self._pipeline.patch(opened, content)
                    self._behind += known_in(parts)
                    before = _OTHER
                else:
                    parts = self._pipeline.stream(opened, content)
                node = opened.finish()
                break
            except StartAgain as again:
                doubt = again.doubt
            finally:
                opened.close()
        if doubt is not None:
            frame.unstable.add(item.name)
            self._found(printable(os.path.join(frame.folder.path, item.name)), doubt)
        return node, parts, before

    def _node(self, frame: Frame, item: Item) -> Node | None:
        try:
            return frame.folder.node(item)
        except SourceError as error:
            self._lost(frame, item.name, error)
            return None

    def _count(self, node: Node, before: Node | None) -> None:
        self.uids.add(node.uid)
        self.gids.add(node.gid)
        if before is None:
            self.files_new += 1
        elif (before.size, before.mtime, before.kind) != (node.size, node.mtime, node.kind):
            self.files_changed += 1  # else it was only looked at again
        self._items += 1
        self._bytes += node.size

    def _lost(self, frame: Frame, name: bytes, error: SourceError) -> None:
        frame.unstable.add(name)
        self._failed(printable(os.path.join(frame.folder.path, name)), error)

    def _failed(self, where: str, error: SourceError) -> None:
        if self._source.all_or_nothing:
            raise error
        self.files_failed += 1
        self._found(where, error)

    def _torn(self, frame: Frame, name: bytes) -> None:
        frame.unstable.add(name)
        where = printable(os.path.join(frame.folder.path, name))
        self._found(where, SourceChanged(f"{where} changed while it was read; its copy may mix two states"))

    def _found(self, where: str, error: SourceError) -> None:
        self.findings.append(Finding(where, error))
        self._report.finding(where, error)

    def _remember(self, frame: Frame, top: TreeId, summary: Summary) -> None:
        """Note a built folder for the next run, so that nothing doubtful looks unchanged in it."""
        if frame.unlisted:
            self._past.discard(frame.folder.key)
            return
        listing = frame.listing
        if frame.unstable:
            listing = tuple(blank(segment, frame.unstable) for segment in listing)
        self._past.put(frame.folder.key, top, summary, frame.names, listing)

    def _drain(self, *, wait: bool = False) -> None:
        self._assembly.drain()
        while self._assembly.waiting > WAITING_MAX or (wait and self._assembly.waiting):
            if self._assembly.held:
                return
            self._pipeline.submit()
            self._pipeline.wait(self._assembly.head)
            self._assembly.drain()

    def _tell(self) -> None:
        if self._items or self._bytes:
            self._report.advanced(self._items, self._bytes)
            self._items = self._bytes = 0
