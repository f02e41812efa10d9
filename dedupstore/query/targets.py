"""What a query's names mean: a collection, a view over one, the buckets of a time series.

A view is followed to the collection under it, its stages gathered on the way. The documents of a time series
are buckets, and are read under ``system.buckets.NAME`` as on servers before 8.3; read as what it is, a time
series is refused.
"""

from dataclasses import dataclass
from typing import Final

from dedupstore.documents.view import CollectionView, View
from dedupstore.query.failures import Failure, QueryError, not_done
from dedupstore.query.stages import Stage, parse_pipeline
from dedupstore.query.values import fields, items
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import TIMESERIES, VIEW, CollectionInfo
from dedupstore.sources.bson.prelude import BUCKETS

MOST_VIEWS: Final = 20
"""Views over views."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is read: a collection, or nothing where there is none; and the stages of the views above it."""

    collection: CollectionView | None
    stages: tuple[Stage, ...] = ()
    collated: bool = False
    """Whether the collection, or a view, orders texts by another collation than the simple one."""


def resolve(view: View, db: str, name: str, *, buckets: bool = False) -> Target:
    """Return what a name means; ``buckets``: a time series is read as its buckets. Raises `QueryError`."""
    stages: tuple[Stage, ...] = ()
    collated = False
    for _ in range(MOST_VIEWS):
        found = stored(view, db, name)
        if found is None:
            return Target(None, stages, collated)
        collated = collated or has_collation(found.info)
        if found.info.kind == TIMESERIES and name == found.info.name and not buckets:
            raise QueryError(
                Failure.NotImplemented,
                f"{found.info.namespace} is a time series, which is not taken apart here: "
                f"read its buckets in {db}.{BUCKETS}{name}, or restore it",
            )
        if found.info.kind != VIEW:
            return Target(found, stages, collated)
        name, above = _definition(found.info)
        stages = above + stages
    raise QueryError(Failure.BadValue, f"View depth too deep or view cycle detected: more than {MOST_VIEWS}")


def stored(view: View, db: str, name: str) -> CollectionView | None:
    """Return what a name stands for by itself: ``system.buckets.NAME`` is the time series of that name."""
    found = view.find(db, name)
    if found is None and name.startswith(BUCKETS):
        found = view.find(db, name.removeprefix(BUCKETS))
        if found is not None and found.info.kind != TIMESERIES:
            return None
    return found


def has_collation(info: CollectionInfo) -> bool:
    """Tell whether a collection has a collation of its own."""
    found = raw.field(info.options, b"collation")
    return found is not None and not is_simple(info.options[found.start : found.end])


def is_simple(collation: bytes) -> bool:
    """Tell whether a collation is the one by bytes."""
    locale = raw.field(collation, b"locale")
    return locale is None or collation[locale.start : locale.end] == raw.string("simple")


def _definition(info: CollectionInfo) -> tuple[str, tuple[Stage, ...]]:
    """Return what a view is over, and its stages."""
    given = dict(fields(b"\x03" + info.options))
    over, pipeline = given.get(b"viewOn", b""), given.get(b"pipeline", b"")
    if not over or over[0] != raw.STRING or (pipeline and pipeline[0] != raw.ARRAY):
        raise not_done(f"the view {info.namespace}, whose definition is not a plain one,")
    try:
        stages = parse_pipeline(items(pipeline)) if pipeline else ()
    except QueryError as error:
        raise QueryError(error.failure, f"the view {info.namespace}: {error}") from error
    return raw.text_of(over[1:]).decode("utf-8", "surrogateescape"), stages
