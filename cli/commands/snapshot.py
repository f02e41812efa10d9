"""``dstore snapshot``."""

from dataclasses import replace

import typer

from dedupstore.format.codec import Compression

from ..chosen import SourceRequest, choose_taker, server_request
from ..context import Front, read_time
from ..mongooptions import Db, DbCollection, Dialect, NoLog, Server, VerifySource
from ..options import (
    Archive,
    Command,
    Compress,
    Exclude,
    ExcludeCaches,
    ExcludeFile,
    ExcludeLargerThan,
    Name,
    NewHost,
    NewTags,
    OneFileSystem,
    ReadOnly,
    Sources,
    Stdin,
    TakenAs,
    Time,
)
from ..outcome import tell_outcome
from ..progress import progress_for
from ..signature import signed
from ..tuning import tune


def run(
    ctx: typer.Context,
    paths: Sources = None,
    tag: NewTags = None,
    exclude: Exclude = None,
    exclude_file: ExcludeFile = None,
    exclude_caches: ExcludeCaches = False,
    exclude_larger_than: ExcludeLargerThan = None,
    one_file_system: OneFileSystem = False,
    name: Name = "",
    host: NewHost = None,
    time: Time = None,
    dry_run: ReadOnly = False,
    compression: Compress = None,
    stdin: Stdin = None,
    command: Command = None,
    archive: Archive = None,
    as_: TakenAs = None,
    mongo: Server = None,
    db: Db = None,
    collection: DbCollection = None,
    no_log: NoLog = False,
    verify_source: VerifySource = False,
    oplog_dialect: Dialect = None,
) -> int:
    """Back up files, a command's output, or MongoDB.

    The new snapshot holds everything; what the repository has is not sent again. A file that can not be
    read is named, left out, and makes the exit status 3. Of a folder that mongodump wrote, collections are
    stored unpacked and in order of _id. A server (--mongo) is read once, later snapshots follow its log.
    """
    front = Front.of(ctx)
    request = SourceRequest(
        words=tuple(paths or ()),
        stdin=stdin,
        command=command,
        archive=archive,
        mongo=server_request(
            mongo, db, collection, oplog_dialect, verify_source=verify_source, log=not no_log
        ),
        taken_as=as_,
        exclude=tuple(exclude or ()),
        exclude_files=tuple(exclude_file or ()),
        exclude_caches=exclude_caches,
        exclude_larger_than=exclude_larger_than,
        one_file_system=one_file_system,
        temporary=front.settings.temporary,
    )
    options = replace(
        signed(host, tag),
        name=name,
        compression=None if compression is None else Compression.parse(compression),
        time=None if time is None else read_time(time),
        dry_run=dry_run,
    )
    take = choose_taker(front, request)
    tune()
    with front.repository() as repository, progress_for(front.output) as report:
        result = take(repository, options, report)
    return tell_outcome(front.output, result)
