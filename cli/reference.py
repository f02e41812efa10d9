"""The command line described from itself: what ``docs/cli.md`` and the completion scripts are made of.

``python -m cli.reference > docs/cli.md`` writes the manual anew; a test fails when it is not current.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import typer
from typer._click.core import Command, Context, Parameter

from .app import COMMANDS, PROGRAM, root_command
from .exitcodes import (
    BUSY,
    DAMAGE,
    DONE,
    FAILED,
    INCOMPLETE,
    INTERRUPTED,
    NO_REPOSITORY,
    USAGE,
    WRONG_PASSPHRASE,
)

STATUSES = {
    DONE: "done",
    FAILED: "failed",
    USAGE: "the command line makes no sense",
    INCOMPLETE: "done, but something at the source could not be read",
    DAMAGE: "damage was found",
    NO_REPOSITORY: "there is no repository at that place",
    BUSY: "the repository is in use, or this session was ended from outside",
    WRONG_PASSPHRASE: "no key opens with this passphrase or key file",
    INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its spellings, what it takes (None: nothing), and its help."""

    names: tuple[str, ...]
    metavar: str | None
    help: str
    choices: tuple[str, ...] = ()
    path: bool = False


@dataclass(frozen=True, slots=True)
class Described:
    """One command: the words that call it, and all there is to say."""

    words: tuple[str, ...]
    usage: str
    help: str
    arguments: tuple[tuple[str, str], ...]
    flags: tuple[Flag, ...]
    group: bool


def describe() -> Iterator[Described]:
    """Yield the root, then every command and subcommand in the order of the table."""
    root = root_command()
    context = typer.Context(root, info_name=PROGRAM, **root.context_settings)
    yield _described((), root, context)
    for name in COMMANDS:
        command = root.get_command(context, name)  # type: ignore[attr-defined]
        below = typer.Context(command, info_name=name, parent=context)
        yield _described((name,), command, below)
        for inner in command.list_commands(below) if hasattr(command, "list_commands") else ():
            subcommand = command.get_command(below, inner)
            yield _described(
                (name, inner), subcommand, typer.Context(subcommand, info_name=inner, parent=below)
            )


def _described(words: tuple[str, ...], command: Command, context: Context) -> Described:
    params = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    arguments = tuple(
        (param.make_metavar(context), getattr(param, "help", None) or "")
        for param in params
        if param.param_type_name == "argument"
    )
    flags = tuple(_flag(param, context) for param in params if param.param_type_name == "option")
    usage = context.get_usage().removeprefix("Usage: ")
    return Described(words, usage, command.help or "", arguments, flags, hasattr(command, "commands"))


def _flag(param: Parameter, context: Context) -> Flag:
    takes = not getattr(param, "is_flag", False)
    return Flag(
        # The names of --help come out of a set, so in any order.
        names=tuple(sorted((*param.opts, *param.secondary_opts), key=lambda name: (name[:2] != "--", name))),
        metavar=param.make_metavar(context) if takes else None,
        help=getattr(param, "help", None) or "",
        choices=tuple(str(choice) for choice in getattr(param.type, "choices", ())),
        path=takes and param.type.name in {"path", "file", "directory"},
    )


def manual() -> str:
    """Return the text of ``docs/cli.md``."""
    lines = [
        "# Command reference",
        "",
        "Written by `python -m cli.reference > docs/cli.md` from the program itself; do not edit by hand.",
        "",
    ]
    for described in describe():
        lines += _section(described)
    lines += ["## Exit statuses", "", "| status | meaning |", "|---|---|"]
    lines += [f"| {status} | {meaning} |" for status, meaning in STATUSES.items()]
    return "\n".join(lines) + "\n"


def _section(described: Described) -> Iterator[str]:
    title = " ".join((PROGRAM, *described.words))
    yield f"{'##' if len(described.words) < 2 else '###'} {title}"
    yield ""
    yield described.help
    yield ""
    yield f"    {' '.join(described.usage.split())}"
    yield ""
    rows = [(f"`{name}`", text) for name, text in described.arguments]
    flags = [flag for flag in described.flags if "--help" not in flag.names or not described.words]
    rows += [(_spelling(flag), flag.help) for flag in flags]
    if rows:
        yield "| argument or option | meaning |"
        yield "|---|---|"
        for left, right in rows:
            yield f"| {left} | {right} |"
        yield ""


def _spelling(flag: Flag) -> str:
    value = "\\|".join(flag.choices) if flag.choices else flag.metavar
    return ", ".join(f"`{name}`" for name in flag.names) + (f" {value}" if value else "")


if __name__ == "__main__":
    sys.stdout.write(manual())
