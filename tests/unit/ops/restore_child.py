"""A restore in a process of its own, for tests that kill it or take its privileges away.

Arguments: store, cache, target, user id.
"""

import os
import sys
from pathlib import Path

from restore_samples import bring, messages, reopen

from dedupstore.findings import printable
from dedupstore.objectstore.url import open_store
from dedupstore.ops.restore.restorer import RestoreOptions


def main() -> None:
    store, cache, target, user = sys.argv[1:]
    os.umask(0o027)
    printable(b"\n\xff")  # loads codecs, which somebody else may not be allowed to read
    if int(user):
        os.setgroups([])
        os.setresgid(int(user), int(user), int(user))
        os.setresuid(int(user), int(user), int(user))
    with reopen(Path(cache), open_store(store)) as repo:
        snapshot = repo.snapshots()[-1][1]
        print("ready", flush=True)
        result = bring(repo, snapshot, Path(target), RestoreOptions(verify=True))
    print(result.files, result.skipped, result.incomplete, *messages(result), sep="\n", flush=True)


main()
