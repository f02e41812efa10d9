"""``dstore completion``."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from ..reference import describe
from ..shells import SCRIPTS


class Shell(StrEnum):
    """Shells there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def run(shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")]) -> None:
    """Print a completion script for a shell.

    Put `eval "$(dstore completion bash)"` into the shell's start-up file. Make it anew after an update.
    """
    sys.stdout.write(SCRIPTS[shell.value](list(describe())))
