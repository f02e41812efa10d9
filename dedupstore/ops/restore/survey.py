"""Entry by entry through the snapshot: what is to be made, what stays, what goes.

Links, devices and what stands there already are dealt with at once; regular files go to the planner,
hard links to the end of the window they belong to, folders to the `Descent`. In a dry run nothing is
touched and everything is told. One thread. Memory: the way down, `DOUBTFUL` files, and `linking.Leaders`.
"""

import stat
from collections.abc import Callable, Sequence

from dedupstore.errors import DedupstoreError, ObjectDamaged, TargetError
from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind
from dedupstore.ops.restore.descent import Descent
from dedupstore.ops.restore.existing import Step, decide
from dedupstore.ops.restore.levels import Level
from dedupstore.ops.restore.linking import Leaders
from dedupstore.ops.restore.planner import Linked, Planner, Slot
from dedupstore.ops.restore.request import Action, RestoreOptions
from dedupstore.ops.restore.tally import Tally
from dedupstore.sources.files.beneath import Place
from dedupstore.sources.files.deposit import failure, is_plain_name
from dedupstore.sources.files.write import Target
from dedupstore.tree.walk import Lost

_DIR = int(NodeKind.DIR)
_FILES = (int(NodeKind.FILE), int(NodeKind.STREAM))
_DEVICES = 1 << 63
_SIZES = 1 << 63
DOUBTFUL = 256
"""Existing files that are compared together, at most."""

Check = Callable[[Sequence[Slot]], list[bool]]
"""Says of each file whether what is on the disk has the content it should have."""


class Survey:
    """Turns entries in path order into changes and plans."""

    def __init__(
        self, descent: Descent, planner: Planner, check: Check, tally: Tally, options: RestoreOptions
    ) -> None:
        self._descent = descent
        self._planner = planner
        self._check = check
        self._tally = tally
        self._overwrite = options.overwrite
        self._dry = options.dry_run
        self._delete = options.delete
        self._verify = options.verify
        self._leaders = Leaders()
        self._doubtful: list[Slot] = []
        self._entered = False
        descent.before_leaving = self._settle

    def take(self, path: bytes, node: Node, passage: bool) -> None:
        """Deal with the next entry; ``passage``: a folder that paths only lead through."""
        name = node.name
        descent = self._descent
        level = descent.leave_to(path[: len(path) - len(name) - 1])
        self._entered = False
        if name <= level.last or not is_plain_name(name) or not _makes_sense(node):
            self._tally.finding(path, _nonsense(path))
            return
        level.last = name
        there = not level.fresh and level.has(name)
        is_dir = node.kind == _DIR
        inside = level.inside
        if not passage:
            choice = descent.choice
            if choice.exclude is not None and choice.excludes(path, is_dir):
                return
            inside = inside or choice.includes(path, is_dir)
        if is_dir:
            self._entered = descent.enter(path, node, there=there, inside=inside, passage=passage)
        elif inside:
            try:
                self._restore(level, path, node, there)
            except (OSError, TargetError) as error:
                descent.refused(path, error)

    def descend(self, path: bytes, node: Node) -> bool:
        """Whether the folder that was taken last is to be gone through."""
        del path, node
        return self._entered

    def lost(self, path: bytes, lost: Lost) -> None:
        """Some of a folder's entries can not be read."""
        level = self._descent.leave_to(path if path != b"/" else b"")
        level.lost = True
        self._tally.finding(path, lost.error)

    def finish(self) -> None:
        """The last entry has been taken."""
        self._descent.finish()
        self._planner.flush()

    def _restore(self, level: Level, path: bytes, node: Node, there: bool) -> None:
        """Restore one entry that is no folder; raises ``OSError`` or `TargetError`."""
        name, action = node.name, Action.CREATE
        if there:
            assert level.place is not None
            name, step = self._step(level.place, name, node)
            if step in (Step.KEEP, Step.DRESS, Step.CHECK):
                self._keep(Slot(level.place, name, node, path), step)
                return
            action = Action.CREATE if step is Step.BESIDE else Action.REPLACE
        place = level.place or self._descent.make(level)
        if self._dry:
            self._tally.hear(action, path)
            self._tally.restored(1, node.size)
        elif place is not None:
            if action is Action.REPLACE:
                self._make_way(place, name, path)
            if self._tally.heard is not None:
                self._tally.hear(action, path)
            self._write(Slot(place, name, node, path), replace=action is Action.REPLACE)

    def _step(self, place: Place, name: bytes, node: Node) -> tuple[bytes, Step]:
        """Say what to do with an entry whose name is taken, and under which name."""
        step = self._decide(place, name, node)
        beside, number = name, 1
        while step is Step.BESIDE:
            beside = name + self._descent.suffix + (b"-%d" % number if number > 1 else b"")
            step = self._decide(place, beside, node)
            number += 1
        return (beside, Step.BESIDE) if step is Step.WRITE and beside is not name else (beside, step)

    def _decide(self, place: Place, name: bytes, node: Node) -> Step:
        target = self._target()
        status = target.look(place, name)
        if status is None:
            return Step.WRITE
        is_link = node.kind == NodeKind.SYMLINK and stat.S_ISLNK(status.st_mode)
        aim = target.link_target(place, name) if is_link else b""
        return decide(node, status, self._overwrite, aim)

    def _make_way(self, place: Place, name: bytes, path: bytes) -> None:
        """Remove a folder that stands where something else is to go: an empty one, unless `delete`."""
        target = self._target()
        status = target.look(place, name)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return
        if self._delete:
            self._tally.removed(path, target.remove(place, name, self._descent.keeps(), path))
        else:
            target.remove_empty(place, name)

    def _write(self, slot: Slot, *, replace: bool) -> None:
        node = slot.node
        if node.link and self._joins(slot):
            return
        if node.kind in _FILES:
            self._planner.add(slot)
        else:
            self._target().make_other(slot.place, slot.name, node, replace=replace)
            self._tally.restored(1, 0)
        self._planner.turn()

    def _joins(self, slot: Slot) -> bool:
        """Whether a file is only another name of one that came before; it is linked later, if so."""
        leader = self._leaders.find(slot.node)
        if leader is None:
            self._leaders.lead(slot.node, slot.place, slot.name)
            return False
        self._settle()  # so that the leader is planned in this window or before
        self._planner.window.links.append(Linked(slot, leader))
        self._planner.turn()
        return True

    def _keep(self, slot: Slot, step: Step) -> None:
        """What stands there stays; with the right attributes, if it is what the snapshot has."""
        if step is Step.KEEP:
            self._tally.kept(slot.path, slot.node.size)
        elif self._dry or not slot.node.link or not self._joins(slot):
            if step is Step.CHECK:
                self._doubtful.append(slot)
                if len(self._doubtful) >= DOUBTFUL:
                    self._settle()
            else:
                self._accept(slot)

    def _settle(self) -> None:
        """Compare the content of files that look right, and write those that are not."""
        slots, self._doubtful = self._doubtful, []
        for slot, good in zip(slots, self._check(slots) if slots else (), strict=True):
            if good:
                self._accept(slot)
                continue
            self._tally.hear(Action.REPLACE, slot.path)
            if self._dry:
                self._tally.restored(1, slot.node.size)
            else:
                self._planner.add(slot)

    def _accept(self, slot: Slot) -> None:
        """A file is restored already; see to its attributes."""
        if not self._dry:
            try:
                self._dress(self._target(), slot)
            except OSError as error:
                self._descent.refused(slot.path, error)
                return
            if self._verify and slot.node.kind in _FILES:
                self._planner.window.slots.append(slot)
        self._tally.kept(slot.path, slot.node.size)

    def _dress(self, target: Target, slot: Slot) -> None:
        place, name, node = slot.place, slot.name, slot.node
        if not target.differs(place, name, node):
            return
        if node.kind not in _FILES:
            target.dress_other(place, name, node)
            return
        number = failure(target.dress_file(place, name, node))
        if number:
            raise OSError(number, "attributes refused")

    def _target(self) -> Target:
        target = self._descent.target
        assert target is not None  # asked only where something stands on the disk
        return target


def _makes_sense(node: Node) -> bool:
    """Whether the system's calls can be asked for such a thing at all."""
    if node.xattrs and any(not key or b"\0" in key for key, _ in node.xattrs):
        return False
    return b"\0" not in node.target and 0 <= node.rdev < _DEVICES and node.size < _SIZES


def _nonsense(path: bytes) -> DedupstoreError:
    return ObjectDamaged(
        f"the entry {printable(path)} makes no sense, has a name that is not allowed, or stands twice: it is "
        "left out; run verify to see what else is damaged"
    )
