"""Looking for something in many trees, at each distinct page once.

What a page and everything below it answered is remembered under the page's id and the state in
which it was reached. Snapshots share all pages that did not change, so the second tree costs what
differs, and what was found in the rest comes from memory.

Memory: at most ``room`` pages and finds remembered together, at about 600 bytes each; what is beyond is
searched again in every tree that has it. The search itself keeps one page for each level of each
folder on the way down. Lazy; a memory and its searches belong to one thread.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from dedupstore.format.tree import Page
from dedupstore.ids import TreeId
from dedupstore.model import Node
from dedupstore.tree.walk import SURVIVABLE, LoadPage, Lost

T = TypeVar("T")
Key: TypeAlias = tuple[TreeId, int]
"""A page, and the state in which it is looked at."""

ROOM = 250_000
"""Pages and finds remembered unless told otherwise: 150 MB."""


class Step(NamedTuple, Generic[T]):
    """Something on a page that matters."""

    node: Node | None
    """An entry; None for a page further down in the same folder."""
    mark: T | None
    """What was found at the entry; None if it only leads on."""
    below: Key | None
    """Where to go on, if anything below can matter."""


class Rule(Protocol[T]):
    """What a search looks for. Its answers may depend on the page and the state and nothing else."""

    @property
    def start(self) -> int:
        """The state at the root."""
        ...

    def steps(self, page: Page, state: int) -> Iterable[Step[T]]:
        """Return what matters among the entries of a leaf page, in their order."""
        ...


class Memory(Generic[T]):
    """What pages answered, as long as there is room. For one rule and any number of trees."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._known: dict[Key, tuple[Step[T], ...] | Lost] = {}

    def recall(self, key: Key) -> tuple[Step[T], ...] | Lost | None:
        """Return what a page answered, or None if it is to be asked."""
        return self._known.get(key)

    def keep(self, key: Key, answer: tuple[Step[T], ...] | Lost) -> None:
        """Remember an answer, if there is room."""
        cost = 1 if isinstance(answer, Lost) else 1 + len(answer)
        if cost <= self._room and key not in self._known:
            self._room -= cost
            self._known[key] = answer


class _Frame(Generic[T]):
    """A page that the search is inside of."""

    __slots__ = ("kept", "key", "path", "pending", "steps")

    def __init__(self, key: Key, path: bytes, steps: Iterator[Step[T]], *, new: bool) -> None:
        self.key = key
        self.path = path
        self.steps = steps
        self.kept: list[Step[T]] | None = [] if new else None
        """Steps that turned out to matter; None if they are remembered already."""
        self.pending: Step[T] | None = None
        """The step that the frame above this one on the stack is looking into."""

    def keep(self, step: Step[T]) -> None:
        if self.kept is not None and (step.mark is not None or step.below is not None):
            self.kept.append(step)


def search(
    load: LoadPage, memory: Memory[T], rule: Rule[T], root: TreeId
) -> Iterator[tuple[bytes, Node, T] | tuple[bytes, None, Lost]]:
    """Yield what a rule finds in one tree: path, entry and mark; depth first, parents first.

    Where a page does not load comes the path of its folder, None, and the page as `Lost`; the search
    goes on behind it. An error of the store itself is raised.
    """
    top = _enter(load, memory, rule, (root, rule.start), b"")
    if isinstance(top, Lost):
        yield b"/", None, top
        return
    stack = [top]
    while stack:
        frame = stack[-1]
        step = next(frame.steps, None)
        if step is None:
            stack.pop()
            _close(memory, frame, stack)
            continue
        path = frame.path
        if step.node is not None:
            path += b"/" + step.node.name
            if step.mark is not None:
                yield path, step.node, step.mark
        if step.below is None or memory.recall(step.below) == ():
            frame.keep(step._replace(below=None))
            continue
        entered = _enter(load, memory, rule, step.below, path)
        if isinstance(entered, Lost):
            yield path or b"/", None, entered
            frame.keep(step)
            continue
        frame.pending = step
        stack.append(entered)


def _enter(load: LoadPage, memory: Memory[T], rule: Rule[T], key: Key, path: bytes) -> _Frame[T] | Lost:
    """Open a page, from memory if it is there."""
    answer = memory.recall(key)
    if isinstance(answer, Lost):
        return answer
    if answer is not None:
        return _Frame(key, path, iter(answer), new=False)
    identifier, state = key
    try:
        page = load(identifier)
    except SURVIVABLE as error:
        lost = Lost(identifier, b"", error)
        memory.keep(key, lost)
        return lost
    if page.level:
        refs: Iterable[Step[T]] = [Step(None, None, (ref.id, state)) for ref in page.refs]
        return _Frame(key, path, iter(refs), new=True)
    return _Frame(key, path, iter(rule.steps(page, state)), new=True)


def _close(memory: Memory[T], frame: _Frame[T], stack: list[_Frame[T]]) -> None:
    """Remember what a page answered, and tell the page above whether it has to look here again."""
    if frame.kept is not None:
        memory.keep(frame.key, tuple(frame.kept))
    if stack:
        above = stack[-1]
        step, above.pending = above.pending, None
        if step is not None:
            nothing = frame.kept is not None and not frame.kept
            above.keep(step._replace(below=None) if nothing else step)
