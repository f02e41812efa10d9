"""Folders: entered, made when something is to go into them, left with what is surplus removed.

A folder of the snapshot that matches no include pattern is made only when something under it does.
In a dry run nothing is touched. One thread. Memory: the levels on the way down.
"""

import os
import stat
from collections.abc import Callable

from dedupstore.errors import DedupstoreError, TargetError
from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind
from dedupstore.ops.restore.existing import replaces
from dedupstore.ops.restore.levels import Level
from dedupstore.ops.restore.planner import Made, Planner
from dedupstore.ops.restore.request import Action, Overwrite, RestoreOptions
from dedupstore.ops.restore.selection import Choice
from dedupstore.ops.restore.tally import Tally
from dedupstore.sources.files.beneath import Place
from dedupstore.sources.files.refusals import FULL, target_error, target_full
from dedupstore.sources.files.write import Target


class Descent:
    """Where in the snapshot, and in the target, a restore is."""

    def __init__(
        self,
        target: Target | None,
        planner: Planner,
        tally: Tally,
        options: RestoreOptions,
        choice: Choice,
        leads: frozenset[bytes],
        suffix: bytes,
    ) -> None:
        """``target`` is None in a dry run whose target folder does not exist.

        ``leads``: paths of folders that the snapshot has only because they lead to what was backed up, or
        to what is wanted; what else is in them is nobody's business, so nothing is deleted there.
        ``suffix`` goes behind names of what is restored beside something.
        """
        self.target = target
        self.choice = choice
        self._leads = leads
        self.suffix = suffix
        self.before_leaving: Callable[[], None] = lambda: None
        """Called when a folder has no further entries, before anything else is done about that."""
        self._planner = planner
        self._tally = tally
        self._dry = options.dry_run
        self._delete = options.delete
        self._overwrite = options.overwrite
        self.level = Level(None, b"", Node(b"", int(NodeKind.DIR)), inside=choice.include is None)
        """The folder that the restore is in."""
        self.level.passage = b"" in leads
        if target is None:
            self.level.virtual = True
        else:
            status = os.fstat(target.open(target.root))
            self.level.found(target.root, status, self._names(target, target.root))

    def leave_to(self, path: bytes) -> Level:
        """Leave folders until the one with this path in the snapshot, and return it."""
        level = self.level
        while level.path != path:
            self._leave(level)
            assert level.parent is not None
            level = self.level = level.parent
        return level

    def finish(self) -> None:
        """Leave every folder."""
        self.leave_to(b"")
        self._leave(self.level)

    def enter(self, path: bytes, node: Node, *, there: bool, inside: bool, passage: bool) -> bool:
        """Go into a folder of the present level; False, and a finding, if that is not possible.

        ``there``: its name stands on the disk; ``inside``: it is asked for with everything in it, so it is
        made at once; ``passage``: paths lead through it, so that only what comes is asked for.
        """
        level = Level(self.level, path, node, inside=inside)
        level.passage = passage or path in self._leads
        try:
            if there:
                self._find(level)
            if inside and not passage:
                self.make(level)
        except (OSError, TargetError) as error:
            self.refused(path, error)
            return False
        self.level = level
        return True

    def make(self, level: Level) -> Place | None:
        """Make sure that a level's folder is there, and those above it, and return its place.

        None in a dry run, and where it can not be made, which is raised as `TargetError` or ``OSError``
        the first time only.
        """
        missing = []
        at: Level | None = level
        while at is not None and at.place is None and not at.virtual:
            missing.append(at)
            at = at.parent
        while missing:
            step = missing.pop()
            if step.blocked:
                return None
            step.blocked = True
            self._make_one(step)
            step.blocked = False
        return level.place

    def refused(self, path: bytes, error: OSError | DedupstoreError) -> None:
        """Report why ``path`` (in the snapshot) is not restored; raises `StoreFull` if there is no room."""
        if isinstance(error, OSError):
            root = self.target.root.path if self.target is not None else b""
            if error.errno in FULL:
                raise target_full(root) from error
            error = target_error(error.errno or 0, root + path)
        self._tally.finding(path, error)

    def keeps(self) -> Callable[[bytes, bool], bool] | None:
        """Return what `Target.remove` is to be told about entries that must stay."""
        return None if self.choice.exclude is None else self.choice.excludes

    def _find(self, level: Level) -> None:
        """See what stands on the disk in a folder's place."""
        target, parent = self.target, level.parent
        assert target is not None
        assert parent is not None
        assert parent.place is not None
        status = target.look(parent.place, level.name)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            place = target.enter_folder(parent.place, level.name, write=not self._dry)
            level.found(place, status, self._names(target, place))
        else:
            level.obstacle = status

    def _names(self, target: Target, place: Place) -> list[bytes]:
        names = target.names(place)
        if self._dry:
            return names
        stale = set(target.remove_stale(place, names))
        return [name for name in names if name not in stale] if stale else names

    def _make_one(self, level: Level) -> None:
        parent, target = level.parent, self.target
        assert parent is not None
        action = Action.CREATE
        if level.obstacle is not None and self._overwrite is Overwrite.KEEP_BOTH:
            level.name, level.obstacle = level.name + self.suffix, None
            self._find(level)
            if level.place is not None:
                return
        if level.obstacle is not None:
            if not replaces(self._overwrite):
                raise TargetError(
                    f"{printable(level.path)} is a folder in the snapshot but not in the target: move away "
                    "what stands there, or restore with --overwrite always"
                )
            action = Action.REPLACE
        self._tally.hear(action, level.path)
        if self._dry:
            level.virtual = True
            return
        assert target is not None
        assert parent.place is not None
        if action is Action.REPLACE:
            target.remove(parent.place, level.name)
        level.place = target.make_folder(parent.place, level.name)

    def _leave(self, level: Level) -> None:
        """Remove what is surplus in a folder, and note what is to be set in the end."""
        self.before_leaving()
        place = level.place
        if place is None:
            return
        if self._delete and not level.passage and not level.lost and not level.fresh:
            self._remove_extras(level, place)
        if self._dry or level.parent is None:
            return
        window = self._planner.window
        if level.fresh or (level.inside and not level.passage):
            window.folders.append(Made(place, level.node, level.path, level.fresh))
        elif level.mode is not None:
            window.restored_modes.append((place, level.mode))

    def _remove_extras(self, level: Level, place: Place) -> None:
        choice, target = self.choice, self.target
        assert target is not None
        for name in level.rest():
            path = level.path + b"/" + name
            try:
                status = target.look(place, name)
                if status is None:
                    continue
                is_dir = stat.S_ISDIR(status.st_mode)
                if choice.excludes(path, is_dir) or not (level.inside or choice.includes(path, is_dir)):
                    continue
                count = 1 if self._dry else target.remove(place, name, self.keeps(), path)
            except OSError as error:
                self.refused(path, error)
            else:
                self._tally.removed(path, count)
