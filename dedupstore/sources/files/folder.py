"""A real folder: what is in it, minus what is excluded, and the bytes of its files."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from dedupstore.model import Node
from dedupstore.sources.base import SEGMENT_ENTRIES, Item, Listing
from dedupstore.sources.files.failures import replaced, source_error
from dedupstore.sources.files.handles import Handle
from dedupstore.sources.files.leads import Lead
from dedupstore.sources.files.listing import Lister
from dedupstore.sources.files.metadata import file_node, other_node
from dedupstore.sources.files.options import FilesOptions
from dedupstore.sources.files.readahead import read_ahead
from dedupstore.sources.files.stream import FileStream
from dedupstore.sources.patterns import PatternSet
from dedupstore.sources.segments import (
    failed_record,
    pack_record,
    pack_segment,
    unpack_folders,
    unpack_record,
    unpack_segment,
)

CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""The first 43 bytes of a valid tag (bford.info/cachedir)."""

_NO_LEADS: dict[bytes, Lead] = {}

_NO_NAMES: frozenset[bytes] = frozenset()


class Rules:
    """What all folders of one source share; ``home`` is the device of the first source path."""

    __slots__ = ("home", "lister", "options", "patterns", "selective")

    def __init__(self, options: FilesOptions, patterns: PatternSet, lister: Lister, home: int) -> None:
        self.options = options
        self.patterns = patterns
        self.lister = lister
        self.home = home
        larger = options.exclude_larger_than
        self.selective = bool(options.exclude) or options.exclude_caches or larger is not None
        """Whether anything may be left out."""


class FileFolder:
    """A folder of a file system; see `dedupstore.sources.base.Folder`.

    ``lead`` is set where further source paths lie inside this one: what leads to them is never left
    out. ``device`` is that of the source path this folder belongs to, ``None`` if it is one itself.
    """

    __slots__ = ("_followed", "_handle", "_is_cache", "_leads", "_rules", "_source_device", "unstable")

    def __init__(self, rules: Rules, handle: Handle, *, lead: Lead | None, device: int | None) -> None:
        self._rules = rules
        self._handle = handle
        self._leads = lead.children if lead is not None else _NO_LEADS
        self._source_device = device
        self._is_cache: bool | None = None
        self._followed = _NO_NAMES  # that are looked at through symlinks
        self.unstable: set[bytes] = set()

    @property
    def path(self) -> bytes:
        """Absolute path; built on every call."""
        return self._handle.path

    @property
    def key(self) -> bytes:
        """BLAKE2b-128 of the path."""
        return self._handle.key

    def listing(self) -> Listing:
        """Look at the folder now: every entry, before any exclusion. Raises `SourceError`."""
        try:
            fd = self._handle.acquire()
            try:
                return tuple(self._rules.lister.list_folder(fd, SEGMENT_ENTRIES))
            finally:
                self._handle.release()
        except OSError as error:
            raise source_error(error, self.path) from error

    def items(self, segment: bytes) -> list[Item]:
        """Take one segment apart and leave out what is excluded."""
        items = unpack_segment(segment, self._device())
        return self._kept(items) if self._rules.selective else items

    def folders(self, segment: bytes) -> list[Item]:
        """Return only the folders among `items`."""
        items = unpack_folders(segment, self._device())
        return self._kept(items) if self._rules.selective else items

    def node(self, item: Item) -> Node:
        """Return the node of an entry that is not a regular file."""
        if not item.mode:
            error = OSError(item.rdev, os.strerror(item.rdev))
            raise source_error(error, self._path_of(item)) from error
        try:
            fd = self._handle.acquire()
            try:
                return other_node(fd, item, self._rules.home, follow=item.name in self._followed)
            finally:
                self._handle.release()
        except OSError as error:
            raise source_error(error, self._path_of(item)) from error

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        """Read a whole regular file; see `dedupstore.sources.base.Folder.read`."""
        handle = self._handle
        try:
            fd = handle.acquire()
            try:
                dev = handle.dev
                size, record, xattrs = self._rules.lister.read_file(fd, item.name, into, dev)
                if record != item.record or size != item.size:
                    first = record
                    size, record, xattrs = self._rules.lister.read_file(fd, item.name, into, dev)
                    item = unpack_record(item.name, record, dev)
                    if record != first or size not in {item.size, -1}:
                        self.unstable.add(item.name)
            finally:
                handle.release()
        except OSError as error:
            raise source_error(error, self._path_of(item)) from error
        if not stat.S_ISREG(item.mode):
            raise replaced(self._path_of(item))
        try:
            return file_node(item, size, xattrs, self._rules.home), size
        except OSError as error:
            raise source_error(error, self._path_of(item)) from error

    def read_run(self, items: Sequence[Item], into: memoryview) -> list[Node | None]:
        """Read several files in one stretch; see `dedupstore.sources.base.ReadsRuns.read_run`."""
        handle, home = self._handle, self._rules.home
        wanted = tuple([(item.name, item.size) for item in items])
        try:
            fd = handle.acquire()
            try:
                found = self._rules.lister.read_files(fd, wanted, into, handle.dev)
            finally:
                handle.release()
        except OSError:
            return [None] * len(items)  # whoever asks for one of them learns why
        nodes: list[Node | None] = []
        for item, reading in zip(items, found, strict=True):
            if isinstance(reading, int) or reading[1] != item.record or reading[0] != item.size:
                nodes.append(None)  # not as it was listed, or not to be had
                continue
            try:
                nodes.append(file_node(item, item.size, reading[2], home))
            except OSError:
                nodes.append(None)
        return nodes

    def expect(self, items: Sequence[Item]) -> None:
        """Have the kernel start reading the first MiB of each regular file, without waiting for it."""
        with suppress(OSError):
            fd = self._handle.acquire()
            try:
                read_ahead(fd, items)
            finally:
                self._handle.release()

    def open(self, item: Item) -> FileStream:
        """Open a regular file of any size."""
        path = self._path_of(item)
        handle = self._handle
        try:
            fd = handle.acquire()
        except OSError as error:
            raise source_error(error, path) from error
        try:
            return FileStream(
                fd, item, path=path, dev=handle.dev, home=self._rules.home, unstable=self.unstable
            )
        finally:
            handle.release()

    def folder(self, item: Item) -> "FileFolder":
        """Return the folder behind an item."""
        lead = self._leads.get(item.name)
        handle = self._handle.child(item.name)
        if lead is not None and lead.source:
            return FileFolder(self._rules, handle, lead=lead, device=None)
        if lead is not None and self._closed_off(item):
            return LeadFolder(self._rules, handle, lead=lead)
        return FileFolder(self._rules, handle, lead=lead, device=self._home_device())

    def descends(self, item: Item) -> bool:
        """Whether to go into this folder: not if it is a mount point and the source is one file system."""
        if not self._rules.options.one_file_system or item.name in self._leads:
            return True
        return item.dev == self._home_device()

    def close(self) -> None:
        """Give the folder back."""
        self._handle.close()

    def _device(self) -> int:
        try:
            return self._handle.dev
        except OSError as error:
            raise source_error(error, self.path) from error

    def _home_device(self) -> int:
        """Device of the source path this folder belongs to."""
        return self._device() if self._source_device is None else self._source_device

    def _path_of(self, item: Item) -> bytes:
        path = self.path
        return path + item.name if path == b"/" else path + b"/" + item.name

    def _kept(self, items: list[Item]) -> list[Item]:
        leads = self._leads
        if self._rules.options.exclude_caches and self._holds_cache():
            return [item for item in items if item.name == CACHE_TAG or item.name in leads]
        prefix = self.path.rstrip(b"/") + b"/"
        return [item for item in items if item.name in leads or not self._excluded(prefix, item)]

    def _excluded(self, prefix: bytes, item: Item) -> bool:
        larger = self._rules.options.exclude_larger_than
        if larger is not None and item.size > larger and stat.S_ISREG(item.mode):
            return True
        return self._rules.patterns.excluded(prefix + item.name, stat.S_ISDIR(item.mode))

    def _closed_off(self, item: Item) -> bool:
        """Whether a folder is only kept because it leads to a source path further down."""
        options = self._rules.options
        return (
            (options.one_file_system and item.dev != self._home_device())
            or (options.exclude_caches and self._holds_cache())
            or self._excluded(self.path.rstrip(b"/") + b"/", item)
        )

    def _holds_cache(self) -> bool:
        if self._is_cache is None:
            start = bytearray(len(CACHE_SIGNATURE))
            try:
                fd = self._handle.acquire()
                try:
                    # -1 is the answer for a tag that is longer: the buffer is then full.
                    self._rules.lister.read_file(fd, CACHE_TAG, start, 0)
                finally:
                    self._handle.release()
            except OSError:
                start.clear()  # no tag, or none that we may read
            self._is_cache = start == CACHE_SIGNATURE
        return self._is_cache


class LeadFolder(FileFolder):
    """A folder above the source paths (or between them): it shows only the names that lead to them.

    It and its metadata are real; reaching it may follow symlinks in the path as the user gave it.
    Nothing in it is ever excluded.
    """

    __slots__ = ()

    def __init__(self, rules: Rules, handle: Handle, *, lead: Lead, device: int | None = None) -> None:
        super().__init__(rules, handle, lead=lead, device=device)
        self._followed = frozenset(name for name, step in lead.children.items() if not step.source)

    def listing(self) -> Listing:
        """Look at the names that lead on; those that are gone meanwhile are left out."""
        entries = []
        try:
            fd = self._handle.acquire()
            try:
                for name in sorted(self._leads):
                    record = self._look(fd, name, follow=name in self._followed)
                    if record is not None:
                        entries.append((name, record))
            finally:
                self._handle.release()
        except OSError as error:
            raise source_error(error, self.path) from error
        starts = range(0, len(entries), SEGMENT_ENTRIES)
        return tuple(pack_segment(entries[start : start + SEGMENT_ENTRIES]) for start in starts)

    def folder(self, item: Item) -> FileFolder:
        """Return the folder behind an item: a source path, or another step towards one."""
        lead = self._leads[item.name]
        if lead.source:
            return FileFolder(self._rules, self._handle.child(item.name), lead=lead, device=None)
        return LeadFolder(self._rules, self._handle.leading(item.name), lead=lead)

    def _kept(self, items: list[Item]) -> list[Item]:
        return items

    def _look(self, fd: int, name: bytes, *, follow: bool) -> bytes | None:
        try:
            return pack_record(os.stat(name, dir_fd=fd, follow_symlinks=follow), self._handle.dev)
        except FileNotFoundError:
            return None
        except OSError as error:
            return failed_record(error.errno or errno.EIO)
