"""``dstore mongo log``."""

import typer

from dedupstore.documents.history import versions
from dedupstore.documents.timeline import Timeline, span
from dedupstore.sources.bson.extjson import parse_id, shown_value

from ..context import Front, Wanted
from ..exitcodes import status_of_findings
from ..mongooptions import Collection, OneId, ServerName
from ..options import Host, Tags
from ..render import text_shown
from ..versions import version_fields, version_lines
from ..views import Asked, chosen_server, holding, of_lineage, parse_namespace


def run(
    ctx: typer.Context,
    collection: Collection,
    id_: OneId,
    server: ServerName = None,
    host: Host = None,
    tag: Tags = None,
) -> int:
    """Show every version of one document.

    Each operation of the stored log that changed it, when, and what it changed: + a new field, - one that
    is gone, ~ one that is not what it was. Where the log has a hole, the next snapshot is compared.
    """
    front = Front.of(ctx)
    namespace, identity = parse_namespace(collection), parse_id(id_)
    wanted = Wanted(None, None, host, tuple(tag or ()))
    asked = Asked(wanted, server=server, namespace=namespace)
    with front.repository() as repository:
        repository.sync()
        entries = front.snapshots(repository)
        chosen = chosen_server(entries, asked)
        ours = of_lineage(entries, None if chosen is None else chosen.lineage)
        timeline = Timeline(repository, [] if chosen is None else ours)
        holds = holding(asked)
        others = [entry for entry in ours if span(entry[1]) is None and holds(entry[1])]
        found = versions(repository, timeline, *namespace, identity, others=others)
        if front.settings.json:
            front.output.array(map(version_fields, found))
        else:
            number = 0
            for number, version in enumerate(found, 1):  # noqa: B007 - counted
                for line in version_lines(version):
                    front.output.line(text_shown(line))
            if not number:
                front.say(f"nothing here tells of a document {shown_value(identity)} in {collection}")
        return status_of_findings(front.doubts(repository, wanted))
