"""A mongodump archive as the outlet: a file or a pipe that ``mongorestore --archive`` reads."""

from collections.abc import Iterator, Sequence

from dedupstore.findings import Finding
from dedupstore.sources.bson.archiveout import ArchiveWriter, Output
from dedupstore.sources.bson.collection import CollectionInfo, metadata_json
from dedupstore.sources.bson.prelude import Entry, Namespace, Prelude

BATCH = 1024 * 1024
"""Bytes of documents handed over at once, and one document."""


class ArchiveOutlet:
    """Writes one archive to ``out``, which stays the caller's. See `export.Outlet`. Memory: `BATCH`.

    A collection whose reading fails half-way makes the archive useless, so that ends the run.
    """

    resilient = False

    def __init__(self, out: Output, server_version: str, tool_version: str) -> None:
        self._out = out
        self._versions = server_version, tool_version
        self._prelude = Prelude((), *self._versions, concurrent=1)
        self._writer: ArchiveWriter | None = None

    def begin(self, infos: Sequence[CollectionInfo]) -> None:
        """Write what stands before the first document."""
        self._prelude = Prelude(tuple(map(_entry, infos)), *self._versions, concurrent=1)
        self._writer = ArchiveWriter(self._out, self._prelude)

    def after(self, info: CollectionInfo) -> bytes | None:
        """Every file is written from the start."""
        del info
        return None

    def collection(self, info: CollectionInfo, documents: Iterator[bytes]) -> None:
        """Write one collection, and that it has ended."""
        writer = self._writer
        assert writer is not None
        namespace = self._prelude.data_of(_entry(info))
        batch: list[bytes] = []
        size = 0
        for document in documents:
            batch.append(document)
            size += len(document)
            if size >= BATCH:
                writer.write(namespace, b"".join(batch))
                batch, size = [], 0
        if batch:
            writer.write(namespace, b"".join(batch))
        writer.end(namespace)

    def finish(self) -> Sequence[Finding]:
        """Write the end."""
        if self._writer is not None:
            self._writer.finish()
        return ()

    def close(self) -> None:
        """Nothing is held."""


def _entry(info: CollectionInfo) -> Entry:
    return Entry(Namespace(info.db, info.name), metadata_json(info), 0, info.kind)
