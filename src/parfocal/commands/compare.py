"""`parfocal compare`: which run is better, and whether by more than chance."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold several.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page, or the table. [default: report.html above the runs; the terminal]"),
    ] = None,
    output_format: Annotated[
        Literal["html", "lab", "csv", "json", "latex"],
        typer.Option("--format", help="A page, the lab's report as Markdown, or a table."),
    ] = "html",
) -> None:
    """Compare finished runs: their figures with intervals, and which differences are larger than chance.

    Writes one page, with its figures as SVG and PNG beside it; the lab's report, to be written to its end; or a table.

    Example: `parfocal compare runs/demo/resnet18 runs/demo/resnet50 -o comparison.html`
    """
    from parfocal.commands.tables import print_comparison
    from parfocal.evaluation.compare import compare_runs
    from parfocal.io import write_text
    from parfocal.report.formatting import read_tta_by_run
    from parfocal.report.lab import write_lab_report
    from parfocal.report.report import compare as write_page
    from parfocal.report.tables import format_comparison
    from parfocal.run import open_runs

    if output_format in ("html", "lab"):
        comparison = write_page(runs, out) if output_format == "html" else write_lab_report(runs, out)
        print_comparison(open_runs(runs), comparison)
        typer.echo(f"Report: {comparison.report_path}")
        return
    text = format_comparison(compare_runs(runs), output_format, read_tta_by_run(open_runs(runs)))
    if out:
        write_text(out, text)
        typer.echo(f"Table: {out}")
    else:
        typer.echo(text, nl=False)
