"""A content-addressed, deduplicating, encrypted backup store.

The layers, from the bottom; each imports only what lies below it:

* words: `dedupstore.ids`, `dedupstore.model`, `dedupstore.errors`, `dedupstore.clock`, `dedupstore.progress`
* bytes: `dedupstore.format` (encodings), `dedupstore.chunker` (cuts), `dedupstore.objectstore` (places)
* repository: `dedupstore.repository` (chunks in, chunks out, safely)
* shapes: `dedupstore.tree` (what is inside a snapshot), `dedupstore.sources` (where it comes from)
* operations: `dedupstore.ops` (one verb each)

``docs/architecture.md`` follows one byte through them.
"""

__version__ = "0.1.0"
