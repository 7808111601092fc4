"""Tables on standard output, plain where it is not a terminal."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def print_table(*headings: str, rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text below headings."""
    table = new_table(*headings)
    for row in rows:
        table.add_row(*row)
    show(table)


def show(table: Table | str = "") -> None:
    """Print a table, or a line, as wide as the terminal, or as it needs to be where there is none."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=200)
    console.print(table, highlight=False, markup=not isinstance(table, str))


def new_table(*headings: str) -> Table:
    """Return an empty table; words stand at the left of their column, figures at the right."""
    words = {
        "split", "about", "experiments", "from", "trains", "value", "default", "whose", "meaning", "reason", "code",
        "finding", "figure", "accuracy", "wished for", "answer", "unit", "looks",
    }  # fmt: skip
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 or heading in words else "right")
    return table
