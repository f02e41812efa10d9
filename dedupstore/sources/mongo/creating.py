"""Collections, views and indexes as commands: what makes them on a server as they were on another."""

from collections.abc import Sequence
from typing import Any

import bson

from dedupstore.errors import DedupstoreError, TargetError
from dedupstore.findings import Finding
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import TIMESERIES, VIEW, CollectionInfo
from dedupstore.sources.mongo.client import Node, document
from dedupstore.sources.mongo.failures import INVALID_INDEX_OPTION, NAMESPACE_EXISTS, code_of

_OWN = frozenset((b"autoIndexId", b"recordIdsReplicated", b"uuid", b"temp"))
"""Options that say something of the server they come from, or that servers refuse."""
EXPIRES = b"expireAfterSeconds"
_ID_INDEX = b"_id_"


def create(node: Node, info: CollectionInfo, *, fresh: bool = False) -> None:
    """Make a collection or view, empty; expiry is left out, see `set_expiry`.

    One that is there stays, or is an error if it should be ``fresh``. Raises `TargetError`, `AccessError`.
    """
    body: dict[str, Any] = {"create": info.name}
    for element in raw.elements(info.options):
        if element.name not in _OWN and (info.kind == VIEW or element.name != EXPIRES):
            body[element.name.decode()] = _value(info.options, element)
    try:
        node.command(info.db, body, f"creating {info.namespace}")
    except TargetError as error:
        if fresh or code_of(error) != NAMESPACE_EXISTS:
            raise


def set_expiry(node: Node, info: CollectionInfo) -> None:
    """Let the documents of a clustered collection or time series expire as they did. Raises `TargetError`."""
    found = raw.field(info.options, EXPIRES)
    if found is None or info.kind == VIEW:
        return
    body = {"collMod": info.name, EXPIRES.decode(): _value(info.options, found)}
    node.command(info.db, body, f"setting the expiry of {info.namespace}")


def create_indexes(node: Node, info: CollectionInfo, *, expiring: bool) -> list[Finding]:
    """Build a collection's indexes: those that let documents expire, or all the others.

    One that can not be built is a finding, and the others are. Raises `TargetError` for a lost connection.
    """
    wanted = [
        index
        for index in info.indexes
        if not _comes_with_collection(index) and (raw.field(index, EXPIRES) is not None) == expiring
    ]
    if not wanted or info.kind == VIEW:
        return []
    try:
        _create_indexes(node, info, wanted)
    except TargetError as error:
        if code_of(error) == 0:
            raise
    else:
        return []
    findings = []
    for index in wanted:  # one of them is refused: find out which
        try:
            _create_indexes(node, info, [index])
        except DedupstoreError as error:
            if code_of(error) == 0:
                raise
            findings.append(Finding(f"{info.namespace} {_name(index).decode(errors='replace')}", error))
    return findings


def is_bucket(doc: bytes) -> bool:
    """Say whether a document is a bucket of a time series and not one measurement."""
    names = {element.name: element.type for element in raw.elements(doc)}
    return names.get(b"control") == raw.OBJECT and names.get(b"data") == raw.OBJECT


def is_capped(info: CollectionInfo) -> bool:
    """Say whether the order of insertion is part of the data."""
    found = raw.field(info.options, b"capped")
    return info.kind != TIMESERIES and found is not None and any(info.options[found.start : found.end])


def _create_indexes(node: Node, info: CollectionInfo, indexes: Sequence[bytes]) -> None:
    body: dict[str, Any] = {"createIndexes": info.name, "indexes": [document(_clean(i)) for i in indexes]}
    doing = f"building the indexes of {info.namespace}"
    try:
        node.command(info.db, body, doing)
    except TargetError as error:
        if code_of(error) != INVALID_INDEX_OPTION:
            raise
        # Old servers stored whatever was asked for; what no server knows any more never had an effect.
        node.command(info.db, body | {"ignoreUnknownIndexOptions": True}, doing)


def _clean(index: bytes) -> bytes:
    """Leave out the namespace, which old servers put there: it is another one now."""
    return raw.document(
        (name, kind, index[start:end]) for name, kind, start, end in raw.elements(index) if name != b"ns"
    )


def _comes_with_collection(index: bytes) -> bool:
    """Say whether an index is there by itself: that of ``_id``, and the order of a clustered collection."""
    clustered = raw.field(index, b"clustered")
    return _name(index) == _ID_INDEX or (
        clustered is not None and any(index[clustered.start : clustered.end])
    )


def _name(index: bytes) -> bytes:
    found = raw.field(index, b"name")
    return b"" if found is None or found.type != raw.STRING else raw.text_of(index[found.start : found.end])


def _value(doc: bytes, element: raw.Element) -> Any:
    """Return a field for the driver, documents as they are."""
    if element.type == raw.OBJECT:
        return document(doc[element.start : element.end])
    whole = raw.document([(b"v", element.type, doc[element.start : element.end])])
    return bson.decode(whole, codec_options=_RAW)["v"]


_RAW: bson.CodecOptions[Any] = bson.CodecOptions(document_class=bson.raw_bson.RawBSONDocument)
