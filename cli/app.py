"""The command table, the global options, and how a run ends.

A command's module is imported when that command is called and not before: the table below holds what
``dstore --help`` needs. Global options are understood before and after the command's name.
"""

import copy
import difflib
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, NamedTuple

import typer
from typer._click.core import Command, Context, Parameter
from typer._click.exceptions import ClickException, NoArgsIsHelpError
from typer._click.exceptions import UsageError as BadCommandLine
from typer._click.formatting import HelpFormatter
from typer.core import TyperGroup

from dedupstore.errors import DedupstoreError

from . import interrupt
from .exitcodes import DONE, FAILED, INTERRUPTED, USAGE, status_of
from .settings import remember

PROGRAM: Final = "dstore"


class Entry(NamedTuple):
    """A command: the module under ``commands`` that holds it, and its line in the list of commands."""

    module: str
    """Empty for a group whose commands have modules of their own."""
    help: str
    below: "Mapping[str, Entry] | None" = None
    """Those commands."""


MONGO: Final[dict[str, Entry]] = {
    "tail": Entry("mongo_tail", "Follow a server's log and store it, slice by slice."),
    "ranges": Entry("mongo_ranges", "Show which instants can be restored, and why they end."),
    "get": Entry("mongo_get", "Print one document as it was."),
    "log": Entry("mongo_log", "Show every version of one document."),
    "dump": Entry("mongo_dump", "Write collections as an archive that mongorestore takes."),
    "serve": Entry("mongo_serve", "Show collections as they were to mongosh, Compass and drivers."),
    "load": Entry("mongo_load", "Write collections to a server (restore --to-mongo)."),
}
"""The commands of the group ``mongo``: each is imported alone, since some need a driver and most do not."""


COMMANDS: Final[dict[str, Entry]] = {
    "init": Entry("init", "Make a repository."),
    "snapshot": Entry("snapshot", "Back up files, a command's output, or MongoDB."),
    "snapshots": Entry("snapshots", "List snapshots."),
    "ls": Entry("ls", "List a folder inside a snapshot."),
    "cat": Entry("cat", "Write a file from a snapshot to standard output."),
    "find": Entry("find", "Find names in snapshots."),
    "history": Entry("history", "Show every version of a path."),
    "diff": Entry("diff", "Show what changed between two snapshots."),
    "restore": Entry("restore", "Write files or collections of a snapshot back."),
    "verify": Entry("verify", "Check that everything is there and whole."),
    "stats": Entry("stats", "Show sizes and ratios."),
    "mongo": Entry("", "Back up MongoDB's log; look into, and restore, collections.", MONGO),
    "key": Entry("key", "List, add, remove and export keys."),
    "cache": Entry("cache", "Show, rebuild and clear the local cache."),
    "completion": Entry("completion", "Print a completion script for a shell."),
    "version": Entry("version", "Show versions and the machine code in use."),
}


class CommandTable(TyperGroup):
    """A group that knows the names of its commands and imports the one that is called; the root is one."""

    entries: ClassVar[Mapping[str, Entry]] = COMMANDS

    def list_commands(self, ctx: Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import and return one command, with the global options added to it."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        command = _imported(cmd_name, entry) if entry.below is None else _group(entry.help, entry.below)
        command.name = cmd_name
        options = ctx.find_root().command.params
        for leaf in (getattr(command, "commands", None) or {"": command}).values():
            _accept_globally(leaf, options)
        return command

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items()])

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """Find the command, or say which one was perhaps meant."""
        name = args[0]
        if name not in self.entries and not name.startswith("-"):
            near = difflib.get_close_matches(name, self.entries, n=1)
            ctx.fail(f"there is no command {name!r}" + (f", perhaps {near[0]!r} was meant" if near else ""))
        found = super().resolve_command(ctx, args)
        if not isinstance(found[1], CommandTable):
            # Every import is done. What they made lives as long as the process, so the collector that
            # ``__main__`` switched off need never look at it: not now, and above all not at exit (25 ms).
            gc.freeze()
            gc.enable()
        return found


def new_app(group: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """Return an empty typer app that prints plain text and leaves tracebacks alone."""
    return typer.Typer(
        name=PROGRAM,
        cls=group,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def root(
    ctx: typer.Context,
    repo: Annotated[
        str | None,
        typer.Option("--repo", "-r", metavar="URL", help="The repository: a path or URL (or DSTORE_REPO)."),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read the passphrase from FILE."),
    ] = None,
    password_command: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="Run CMD and read the passphrase from its output."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Open with a key file (or DSTORE_KEY_FILE)."),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep caches here (default: XDG_CACHE_HOME/dstore)."),
    ] = None,
    json: Annotated[
        bool | None, typer.Option("--json", help="Write JSON to standard output, for programs.")
    ] = None,
    quiet: Annotated[
        bool | None, typer.Option("--quiet", "-q", help="Say nothing but answers, findings and errors.")
    ] = None,
    no_color: Annotated[
        bool | None, typer.Option("--no-color", help="Use no colors (or set NO_COLOR).")
    ] = None,
) -> None:
    """Deduplicating, encrypting backups of files and of what commands print.

    The passphrase comes from one of the options below, DSTORE_PASSWORD, a systemd credential named
    dstore-password, or a prompt. These options go before or after the command's name.
    """
    given = {
        "repo": repo,
        "password_file": password_file,
        "password_command": password_command,
        "key_file": key_file,
        "cache_dir": cache_dir,
        "json": json,
        "quiet": quiet,
        "no_color": no_color,
    }
    remember(ctx, given)


def root_command() -> Command:
    """Return the whole command line."""
    app = new_app(CommandTable)
    app.callback(cls=CommandTable, epilog="'dstore COMMAND --help' explains one command.")(root)
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit status. Errors end in one sentence on standard error."""
    _fill_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    interrupt.install()
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone (``| head``). What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _run(arguments: Sequence[str]) -> int:
    try:
        status = root_command().main(
            args=list(arguments) or ["--help"], prog_name=PROGRAM, standalone_mode=False
        )
    except BadCommandLine as error:
        return _usage(error)
    except ClickException as error:
        return _say(error.format_message(), USAGE)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except DedupstoreError as error:
        return _say(str(error), status_of(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _say(f"{what}; this was not expected, please report it if the cause is not plain", FAILED)
    except Exception:  # noqa: BLE001  (the last stop: nothing goes on after it)
        traceback.print_exc()
        return _say("this is a fault in dstore: please report the lines above", FAILED)
    if status == INTERRUPTED:
        return _say("interrupted; what was stored or written is kept, run the same again to go on", status)
    return status if isinstance(status, int) else DONE


def _say(sentence: str, status: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{PROGRAM}: {sentence}\n")
    return status


def _usage(error: BadCommandLine) -> int:
    where = PROGRAM
    if isinstance(error, NoArgsIsHelpError):
        sys.stderr.write(error.ctx.get_help() + "\n")
        path = error.ctx.command_path
        return _say(f"'{path}' needs one of the commands above; see '{path} --help'", USAGE)
    if error.ctx is not None:
        where = error.ctx.command_path
        sys.stderr.write(error.ctx.get_usage() + "\n")
    return _say(f"{error.format_message().rstrip('.')}; see '{where} --help'", USAGE)


def _fill_standard_streams() -> None:
    """Let closed standard streams lead to nowhere.

    Python has None in their place, and the next file to be opened, perhaps a pack, would get their number.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _imported(name: str, entry: Entry) -> Command:
    """Return the command, or the group of them, in a module."""
    module = importlib.import_module(f".commands.{entry.module}", __package__)
    subcommands: dict[str, Callable[..., object]] | None = getattr(module, "SUBCOMMANDS", None)
    app = new_app()
    if subcommands is None:
        app.command(name)(module.run)
    else:
        # A callback makes a group of it even if there is one subcommand; its text is the group's help.
        app.callback(help=entry.help, no_args_is_help=True)(_nothing)
        for inner, function in subcommands.items():
            app.command(inner)(function)
    return typer.main.get_command(app)


def _group(text: str, entries: Mapping[str, Entry]) -> Command:
    """Return a group of commands that have modules of their own; ``text`` is its help."""
    kind = type("Group", (CommandTable,), {"entries": entries})
    app = new_app(kind)
    app.callback(cls=kind, help=text, no_args_is_help=True)(_nothing)
    return typer.main.get_command(app)


def _nothing() -> None:
    """Do nothing: the body of a group of commands."""


def _accept_globally(command: Command, options: Sequence[Parameter]) -> None:
    """Let ``command`` take the global options too, unless it has one of that name itself."""
    own = {name for param in command.params for name in (*param.opts, param.name)}
    for option in options:
        if own.isdisjoint((*option.opts, option.name)) and option.name != "help":
            twin = copy.copy(option)
            twin.expose_value = False
            twin.callback = _remember_one
            twin.hidden = True  # type: ignore[attr-defined]
            command.params.append(twin)


def _remember_one(ctx: Context, param: Parameter, value: object) -> None:
    remember(ctx, {param.name or "": value})  # type: ignore[arg-type]
