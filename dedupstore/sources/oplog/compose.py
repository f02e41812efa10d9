"""Two differences made one: whatever document they are applied to, the result is that of both in turn.

Both must come from one log, the second behind the first on the same document. Then only one thing can
differ, and it never lasts: where the base is newer than the difference (it was read while the log went on)
and lacks a field that ``u`` replaces, the field may be appended at another place. Such a base lacks it
because a later entry removes it, or brings it back at the end.

`Patch` gathers updates of one document: differences become one, modifiers as few as `ModifierRun` can make
them. Memory: a patch holds what the fields that it touches have become, not all that was said of them.
"""

from collections.abc import Iterable

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.diff import (
    APPEND,
    NESTED,
    REMOVE,
    REPLACE,
    ArrayDiff,
    DocumentDiff,
    Nested,
    Step,
    apply_diff,
    apply_update,
    apply_value,
    difference_in,
    parse_diff,
)
from dedupstore.sources.oplog.modifierrun import ModifierRun
from dedupstore.sources.oplog.modifiers import apply_modifiers

_NULL: Step = (REPLACE, bytes((raw.NULL,)))
_V2 = raw.element(b"$v", raw.INT32, raw.int32(2))


def extend(first: DocumentDiff, second: DocumentDiff) -> None:
    """Make ``first`` do what ``second`` does after it. ``second`` must not be used any more.

    Raises `SourceError` where the second can not have followed the first.
    """
    fields = first.fields
    for name, change in second.fields.items():
        before = fields.get(name)
        if before is None:
            fields[name] = change
            continue
        what, payload = change
        if what == NESTED:
            assert not isinstance(payload, bytes)
            fields[name] = _deeper(before, payload, name)
        elif what == APPEND or (what == REPLACE and before[0] == REMOVE):
            del fields[name]
            fields[name] = (APPEND, payload)
        elif what == REPLACE and before[0] == APPEND:
            fields[name] = (APPEND, payload)
        else:
            fields[name] = change


def _deeper(before: Step, diff: Nested, name: bytes) -> Step:
    """Return the change of a field (or element) that ``before`` changed and ``diff`` goes into."""
    what, payload = before
    if what == REMOVE:
        return before
    if isinstance(payload, bytes):
        return what, apply_value(payload, diff)
    if isinstance(payload, DocumentDiff) and isinstance(diff, DocumentDiff):
        extend(payload, diff)
        return before
    if isinstance(payload, ArrayDiff) and isinstance(diff, ArrayDiff):
        return NESTED, _extended(payload, diff)
    raise SourceError(
        f"the log takes the field {printable(name)!r} for a document and for an array: take a new snapshot"
    )


def _extended(first: ArrayDiff, second: ArrayDiff) -> ArrayDiff:
    """Return the difference of an array that does what both do in turn."""
    known = first.length  # of the array between the two, where that is the same for every array
    length = second.length
    if length is None and known is not None:
        length = max(known, max(second.elements, default=-1) + 1)
    changes = first.elements
    if length is not None:
        for index in [index for index in changes if index >= length]:
            del changes[index]
    for index, change in second.elements.items():
        before = changes.get(index)
        what, payload = change
        if what == REPLACE:
            changes[index] = change
        elif before is not None:
            assert not isinstance(payload, bytes)
            changes[index] = _deeper(before, payload, b"%d" % index)
        else:
            changes[index] = _NULL if known is not None and index >= known else change
    if known is not None and length is not None:
        for index in range(known, length):
            changes.setdefault(index, _NULL)
    return ArrayDiff(length, changes)


def update_of(diff: DocumentDiff) -> bytes:
    """Return a difference as the ``o`` of an update."""
    return raw.framed(_V2 + raw.element(b"diff", raw.OBJECT, _document_bytes(diff)))


def _document_bytes(diff: DocumentDiff) -> bytes:
    sections: dict[int, list[bytes]] = {REMOVE: [], REPLACE: [], APPEND: []}
    nested: list[bytes] = []
    for name, (what, payload) in diff.fields.items():
        if isinstance(payload, bytes):
            value = b"\x08\0" if what == REMOVE else payload
            sections[what].append(raw.element(name, value[0], value[1:]))
        else:
            nested.append(raw.element(b"s" + name, raw.OBJECT, _nested_bytes(payload)))
    parts = [
        raw.element(section, raw.OBJECT, raw.framed(b"".join(sections[what])))
        for section, what in ((b"d", REMOVE), (b"u", REPLACE), (b"i", APPEND))
        if sections[what]
    ]
    return raw.framed(b"".join(parts + nested))


def _nested_bytes(diff: Nested) -> bytes:
    if isinstance(diff, DocumentDiff):
        return _document_bytes(diff)
    parts = [raw.element(b"a", raw.BOOL, b"\1")]
    if diff.length is not None:
        parts.append(raw.element(b"l", raw.INT32, raw.int32(diff.length)))
    for index in sorted(diff.elements):
        _, payload = diff.elements[index]
        if isinstance(payload, bytes):
            parts.append(raw.element(b"u%d" % index, payload[0], payload[1:]))
        else:
            parts.append(raw.element(b"s%d" % index, raw.OBJECT, _nested_bytes(payload)))
    return raw.framed(b"".join(parts))


class Patch:
    """Updates of one document, in order, as few as they can be made. One thread.

    Only updates that are no whole documents. ``size`` is about what it takes up, in bytes.
    """

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes | DocumentDiff | ModifierRun] = []  # no two in a row of the same sort
        self.size = 0

    def add(self, update: bytes) -> None:
        """Add an update behind the others. Raises `SourceError` for one that is not known."""
        difference = difference_in(update)
        diff = None if difference is None else parse_diff(difference)
        last = self._parts[-1] if self._parts else None
        if isinstance(last, bytes) and (difference_in(last) is None) == (diff is None):
            last = self._taken_apart(last)
        if isinstance(last, DocumentDiff) and diff is not None:
            extend(last, diff)
            self.size += len(update)
        elif isinstance(last, ModifierRun) and diff is None:
            self.size += last.add(update)
        else:
            self._parts.append(update)
            self.size += len(update)

    def _taken_apart(self, last: bytes) -> DocumentDiff | ModifierRun:
        """Make the last part one that can be added to."""
        difference = difference_in(last)
        part: DocumentDiff | ModifierRun
        if difference is None:
            part = ModifierRun()
            self.size += part.add(last) - len(last)
        else:
            part = parse_diff(difference)
            self.size += (_TAKEN_APART - 1) * len(last)
        self._parts[-1] = part
        return part

    def updates(self) -> tuple[bytes, ...]:
        """Return what there is to apply, in order: ``o`` of updates."""
        found: list[bytes] = []
        for part in self._parts:
            if isinstance(part, bytes):
                found.append(part)
            elif isinstance(part, DocumentDiff):
                found.append(update_of(part))
            else:
                found += part.updates
        return tuple(found)

    def apply(self, document: bytes) -> bytes:
        """Return a document after all of them. Raises `SourceError` for what can not be applied."""
        for part in self._parts:
            if isinstance(part, bytes):
                document = apply_update(document, part)
            elif isinstance(part, DocumentDiff):
                document = apply_diff(document, part)
            else:
                for update in part.updates:
                    document = apply_modifiers(document, update)
        return document


_TAKEN_APART = 4
"""How much more memory a difference needs when it is taken apart; about."""


def patch_of(updates: Iterable[bytes]) -> Patch:
    """Return the patch of these updates."""
    patch = Patch()
    for update in updates:
        patch.add(update)
    return patch
