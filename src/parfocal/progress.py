"""Long work seen live: a bar with rate and time left in a terminal, silence everywhere else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True)


class _RateColumn(ProgressColumn):
    """Items a second, as the user counts them."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")


@contextmanager
def show_progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; call what it yields with the number of items just finished.

    Where nobody knows the total, the bar only moves.
    """
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
    """Say and show nothing from now on: in a process that is one of several, of which the first speaks."""
    console.quiet = True


def print_line(text: str) -> None:
    """Print one line beside the live bars, in a terminal only."""
    if console.is_terminal:
        console.print(text, highlight=False)
