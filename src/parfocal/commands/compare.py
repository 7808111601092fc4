"""`parfocal compare`: one page that compares runs."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold several.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page. [default: report.html above the runs]")
    ] = None,
) -> None:
    """Write one page that compares finished runs, with its figures as SVG and PNG beside it.

    Example: `parfocal compare runs/demo/resnet18 runs/demo/resnet50 -o comparison.html`
    """
    from parfocal.commands.tables import results_table
    from parfocal.report.page import compare as write_page
    from parfocal.run import open_runs

    page = write_page(runs, out)
    results_table(open_runs(runs))
    typer.echo(f"Report: {page}")
