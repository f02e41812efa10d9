"""The pipeline by itself: what its parts say when a worker failed."""

import contextlib
from collections.abc import Sequence

import pytest

from dedupstore.chunker.base import Params, make_chunker
from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import StoreFull
from dedupstore.format.codec import Compression
from dedupstore.ids import ChunkId
from dedupstore.model import Data, Members
from dedupstore.ops.backup.pace import Pace
from dedupstore.ops.backup.parts import Parts, is_done
from dedupstore.ops.backup.pipeline import Pipeline
from dedupstore.sources.segments import unpack_segment
from tests.support.disk import DEVICE, Disk, DiskFolder


class Full:
    """A sink in which there is no room."""

    def claim(self, ids: Sequence[ChunkId]) -> list[bool]:
        return [True] * len(ids)

    def rely(self, ids: Sequence[ChunkId]) -> list[bool]:
        return [True] * len(ids)

    def add(self, codec: int, data: Data, plain_length: int, members: Members) -> None:
        raise StoreFull("no room")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_was_not_stored_is_never_done(workers: int) -> None:
    disk = Disk()
    for number in range(40):
        disk.write(b"/%02d" % number, bytes([number]) * 900_000)
    folder = DiskFolder(disk, disk.root, b"/src")
    (segment,) = folder.listing()
    params = Params.for_average(256 * 1024)
    pipeline = Pipeline(
        Full(),
        make_chunker(bytes(16), params),
        bytes(32),
        Compression.parse("none"),
        1 << 20,
        1 << 17,
        Pace(SYSTEM_CLOCK),
        workers,
    )
    pieces: list[Parts] = []
    with contextlib.suppress(StoreFull):
        for item in unpack_segment(segment, DEVICE):
            whole = pipeline.whole(folder, item)
            assert whole is not None
            pieces.append(whole[1])
        pipeline.submit()
    with pytest.raises(StoreFull):
        pipeline.wait(pieces[0])
    pipeline.close()
    with pytest.raises(StoreFull):
        pipeline.check()
    for parts in pieces:
        assert not is_done(parts)
