"""Messages on standard error: progress bars and status lines in a terminal only, notes and warnings always."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

# A process that another one started for the next device repeats what that one prints before `silence` is called.
console = Console(stderr=True, quiet=os.environ.get("LOCAL_RANK", "0") != "0")


class _RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def show_progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, which pulses if `total` is None; call the yielded function with the number of new items."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=console.quiet or not console.is_terminal) as bar:
        task = bar.add_task(label, total=total)
        yield lambda finished: bar.advance(task, finished)


def silence() -> None:
    """Print nothing from now on, in every process but rank 0."""
    console.quiet = True


def print_line(text: str) -> None:
    """Print a line above the progress bars, in a terminal only."""
    if console.is_terminal:
        console.print(text, highlight=False, markup=False)


def print_note(text: str) -> None:
    """Print a line that belongs in a log as well, whether or not standard error is a terminal."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_warning(text: str) -> None:
    """Print a warning in one line, whether or not standard error is a terminal."""
    print_note(f"Warning: {text}")
