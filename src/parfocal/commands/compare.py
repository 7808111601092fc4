"""`parfocal compare`: compare runs, with confidence intervals and significance tests."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from parfocal.commands.options import RunsArgument


def compare(
    runs: RunsArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file to write. [default: report.html in the parent folder; tables are printed]"
        ),
    ] = None,
    output_format: Annotated[
        Literal["html", "lab", "csv", "json", "latex"],
        typer.Option("--format", help="An HTML page, a draft of the lab report in Markdown (lab), or a table."),
    ] = "html",
) -> None:
    """Compare finished runs: their metrics with confidence intervals, and which differences are significant.

    The output is an HTML page with its figures as SVG and PNG files, a draft of the lab report, or a table.

    Example: `parfocal compare runs/demo/resnet18 runs/demo/resnet50 -o comparison.html`
    """
    from parfocal.commands.tables import print_comparison
    from parfocal.evaluation.compare import compare_runs
    from parfocal.io import write_text
    from parfocal.report.formatting import read_tta_by_run
    from parfocal.report.lab import write_lab_report
    from parfocal.report.report import compare as write_report
    from parfocal.report.tables import format_comparison
    from parfocal.run import open_runs

    if output_format in ("html", "lab"):
        comparison = write_report(runs, out) if output_format == "html" else write_lab_report(runs, out)
        print_comparison(open_runs(runs), comparison)
        typer.echo(f"Report: {comparison.report_path}")
        return
    text = format_comparison(compare_runs(runs), output_format, read_tta_by_run(open_runs(runs)))
    if out:
        write_text(out, text)
        typer.echo(f"Table: {out}")
    else:
        typer.echo(text, nl=False)
