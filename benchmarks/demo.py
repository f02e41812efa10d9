"""The first five minutes: two snapshots of a real folder, and the first one back.

Makes everything below one scratch folder, says each command before it runs it, and leaves the
repository there to play with.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SKIPPED = (".venv", ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis", "build", "*.so")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    source = parser.parse_args().folder.resolve()
    scratch = Path(tempfile.mkdtemp(prefix="dstore-demo-"))
    work = scratch / source.name
    print(f"The demo works on a copy of {source} below {scratch}; nothing else is touched.\n")
    shutil.copytree(source, work, symlinks=True, ignore=shutil.ignore_patterns(*SKIPPED))
    environment = os.environ | {
        "DSTORE_REPO": str(scratch / "repository"),
        "DSTORE_PASSWORD": "correct horse battery staple",
        "XDG_CACHE_HOME": str(scratch / "cache"),
    }
    for name in ("DSTORE_KEY_FILE", "DSTORE_PASSWORD_FILE"):
        environment.pop(name, None)

    def dstore(*arguments: str) -> float:
        print("$ dstore " + " ".join(arguments), flush=True)
        began = time.monotonic()
        command = str(Path(sys.executable).with_name("dstore"))
        code = subprocess.run([command, *arguments], env=environment, check=False).returncode
        took = time.monotonic() - began
        print(f"  [exit {code}, {took:.2f} s]\n", flush=True)
        if code:
            raise SystemExit(f"the demo stops here: dstore {arguments[0]} ended with {code}")
        return took

    dstore("init")
    first = dstore("snapshot", str(work))
    instant = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1.1)
    changed = next(path for path in sorted(work.rglob("*")) if path.is_file() and path.stat().st_size)
    before = changed.read_bytes()
    changed.write_bytes(before + b"\nchanged by the demo\n")
    print(f"(now {changed.relative_to(work)} is changed)\n")
    second = dstore("snapshot", str(work))
    dstore("snapshots")
    dstore("diff", "latest~1", "latest")
    target = scratch / "restored"
    dstore("restore", "--at", instant, "--target", str(target))
    restored = target / str(changed).lstrip("/")
    same = restored.read_bytes() == before
    print(f"(the restored {changed.name} is {'as it was before the change' if same else 'WRONG'})\n")
    dstore("verify", "--data")
    dstore("stats")
    print(f"First snapshot {first:.2f} s, second {second:.2f} s (each with 0.4 s to stretch the passphrase).")
    print("To go on, with ./dev dstore --help:")
    for name in ("DSTORE_REPO", "DSTORE_PASSWORD", "XDG_CACHE_HOME"):
        print(f"  export {name}='{environment[name]}'")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
