"""Progress bars and status lines on standard error, in a terminal only, and warnings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True)


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
        console.print(text, highlight=False)


def print_warning(text: str) -> None:
    """Print a warning in one line on standard error, whether or not that is a terminal."""
    console.print(f"Warning: {text}", highlight=False, markup=False, soft_wrap=True)
