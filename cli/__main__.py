"""Start of the program: ``dstore``, or ``python -m cli`` in a checkout. Imported for nothing else."""

import gc
import sys

# Imports make many objects and no garbage: looking for some would cost a tenth of the start-up.
# `app.CommandTable` switches the collector on again when the command is loaded.
gc.disable()

from .app import run  # noqa: E402  (must come after the line above)


def main() -> None:
    """Run the command line of this process and leave with its exit status."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
