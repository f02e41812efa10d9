"""Tables on a terminal. The only module beside `bars` that loads rich; nothing imports it by name."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .render import Column


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, color: bool) -> None:
    """Write a table to standard output. Cells are taken as they are: no markup is looked for in them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(no_color=not color, highlight=False).print(table)
