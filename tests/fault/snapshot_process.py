"""One snapshot by a process of its own, to be killed. Arguments: folders of store, cache and source."""

import os
import sys
from pathlib import Path

from dedupstore.objectstore.local import LocalStore
from dedupstore.sources.files.scan import FilesSource
from tests.support import repos


def main(store: str, cache: str, source: str) -> None:
    with repos.reopen(LocalStore(Path(store)), Path(cache)) as repo:
        result = repos.run(repo, FilesSource((os.fsencode(source),)))
    print(result.snapshot.statistics.bytes_new, len(result.findings), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
