"""``dstore key``."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from dedupstore.format import constants as c

from ..context import Front
from ..exitcodes import DAMAGE, DONE
from ..keyfiles import add_key_file, check_new
from ..render import Column, Fields, instant, instant_shown
from ..secrets import another_passphrase
from ..whoami import host_name

KINDS = {c.SLOT_PASSPHRASE: "passphrase", c.SLOT_KEY_FILE: "key file"}


def list_slots(ctx: typer.Context) -> int:
    """List the keys that open the repository."""
    front = Front.of(ctx)
    with front.unlocked() as (_, keyring):
        entries = keyring.slots()
        opened_by = keyring.opened_by
    fields: list[Fields] = []
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        here = entry.name == opened_by
        if entry.slot is None:
            fields.append({"id": entry.name, "error": str(entry.error)})
            rows.append((entry.name[:8], "damaged", "", str(entry.error), ""))
            continue
        slot = entry.slot
        kind = KINDS.get(slot.kind, "unknown")
        fields.append(
            {
                "id": entry.name,
                "kind": kind,
                "created": instant(slot.created),
                "label": slot.label,
                "current": here,
            }
        )
        rows.append((entry.name[:8], kind, instant_shown(slot.created), slot.label, "*" if here else ""))
    front.output.document(fields)
    columns = [Column("id"), Column("kind"), Column("created"), Column("label"), Column("in use")]
    front.output.table(columns, rows)
    return DAMAGE if any(entry.slot is None for entry in entries) else DONE


def add(
    ctx: typer.Context,
    new_key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="Make a key file and write it to FILE.")
    ] = None,
    new_password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the new passphrase from FILE.")
    ] = None,
    new_password_command: Annotated[
        str | None, typer.Option(metavar="CMD", help="Run CMD and read the new passphrase.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="TEXT", help="What 'key list' calls it.")] = None,
) -> None:
    """Add a passphrase, or a key file with --key-file.

    The global --key-file, which opens the repository, must come before the word key here.
    """
    front = Front.of(ctx)
    if new_key_file is not None:
        _add_key_file(front, new_key_file, label or f"key file of {host_name()}")
        return
    with front.unlocked() as (_, keyring):
        name = keyring.add(another_passphrase(new_password_file, new_password_command), label or "passphrase")
    _added(front, name, None)


def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; must not exist.")],
) -> None:
    """Write a recovery key: a key file to be kept away from this machine."""
    _add_key_file(Front.of(ctx), file, "recovery key")


def remove(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The beginning of its id in 'key list'.")],
) -> None:
    """Remove a key; never the last one.

    Who had that key and kept a copy of the repository can still read the copy.
    """
    front = Front.of(ctx)
    with front.unlocked() as (_, keyring):
        name = keyring.remove(key)
    front.output.document({"removed": name})
    front.output.line(f"key {name[:8]} removed")


SUBCOMMANDS: dict[str, Callable[..., object]] = {
    "list": list_slots,
    "add": add,
    "remove": remove,
    "export": export,
}


def _add_key_file(front: Front, path: Path, label: str) -> None:
    check_new(path)
    with front.unlocked() as (repository, keyring):
        name = add_key_file(keyring, path, repository.id, label)
    _added(front, name, path)


def _added(front: Front, name: str, path: Path | None) -> None:
    front.output.document({"added": name, "file": None if path is None else str(path)})
    front.output.line(f"key {name[:8]} added" + ("" if path is None else f", written to {path}"))
