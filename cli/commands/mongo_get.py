"""``dstore mongo get``."""

import shlex
from typing import Annotated

import msgspec
import typer

from dedupstore.errors import NotFoundError, UsageError
from dedupstore.sources.bson.extjson import parse_id, shown_value, to_json

from ..context import Front, Wanted
from ..exitcodes import status_of_findings
from ..mongooptions import AtMoment, BeforeOp, Collection, OneId, ServerName, SnapshotOnly
from ..options import Host, Tags
from ..views import Asked, documents_of, open_view, parse_namespace


def run(
    ctx: typer.Context,
    collection: Collection,
    id_: OneId,
    snapshot: SnapshotOnly = None,
    at: AtMoment = None,
    before_op: BeforeOp = False,
    server: ServerName = None,
    host: Host = None,
    tag: Tags = None,
    canonical: Annotated[bool, typer.Option("--canonical", help="Write every number with its type.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Write the document as BSON, byte for byte.")] = False,
) -> int:
    """Print one document as it was.

    It is written as extended JSON on one line. Only the part of the collection that it lies in is read.
    """
    front = Front.of(ctx)
    if raw and (canonical or front.settings.json):
        raise UsageError("--raw writes BSON: leave --canonical and --json out")
    namespace, identity = parse_namespace(collection), parse_id(id_)
    wanted = Wanted(snapshot, at, host, tuple(tag or ()))
    asked = Asked(wanted, before_op, server, namespace, only=identity)
    with front.repository() as repository:
        repository.sync()
        with open_view(front, repository, asked) as seen:
            document = documents_of(seen, namespace).get(identity)
            if document is not None:  # else the error says it
                front.say(seen.sentence)
        status = status_of_findings(front.doubts(repository, wanted))
    if raw and document is not None:
        front.output.raw(document)
        return status
    text = None if document is None else _text(document, relaxed=not canonical)
    shown = None if text is None else msgspec.Raw(text)
    front.output.document({"collection": collection, **seen.fields, "document": shown})
    if text is None:
        raise NotFoundError(
            f"{collection} has no document with the _id {shown_value(identity)} in the {seen.sentence}; "
            f"'dstore mongo log {collection} --id {shlex.quote(id_)}' shows when it had"
        )
    if not front.settings.json:
        front.output.raw(text + b"\n")
    return status


def _text(document: bytes, *, relaxed: bool) -> bytes:
    """Return extended JSON as it goes out; of text that is no UTF-8 the odd bytes become lone surrogates."""
    return to_json(document, relaxed=relaxed).encode("utf-8", "backslashreplace")
