"""`parfocal check`: find the problems of a data set before training."""

from pathlib import Path
from typing import Annotated

import typer

from parfocal.commands.options import ChangesArgument, DataArgument, RecipeOption


def check(
    data: DataArgument,
    changes: ChangesArgument = None,
    recipe: RecipeOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also write the findings to a JSON file, or to an HTML page with images."),
    ] = None,
) -> None:
    """Find problems: unreadable images, duplicates, wrong labels, patients in several splits, shortcuts (confounders).

    The exit code is 1 if training would reject the data.

    Example: `parfocal check smears -o check.html`
    """
    from parfocal.commands.tables import print_table
    from parfocal.data.bit_depth import resolve_bit_depth
    from parfocal.data.checks import apply_waivers
    from parfocal.data.checks import check as find_problems
    from parfocal.data.grouping import describe_groups
    from parfocal.data.split import read_and_split
    from parfocal.io import write_json
    from parfocal.recipe import load_recipe, parse_changes
    from parfocal.report.check_page import write_check_page

    loaded = load_recipe(recipe, **parse_changes(changes or []))
    table = read_and_split(data, loaded)
    table, images = resolve_bit_depth(table, loaded.images)
    findings = apply_waivers(find_problems(table, images, loaded.seed), loaded.data.allow)
    typer.echo(f"{len(table)} rows from {table.source}.")
    typer.echo(describe_groups(table))
    rows = [(finding.severity, finding.code, f"{finding.message} {finding.remedy}".strip()) for finding in findings]
    print_table("severity", "code", "finding", rows=rows)
    if out:
        content = {"source": table.source, "findings": [finding.as_dict() for finding in findings]}
        write_json(out.with_suffix(".json"), content)
        if out.suffix.lower() in (".html", ".htm"):
            write_check_page(out, table, findings)
        typer.echo(f"Findings: {out}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)
    typer.echo("Ready to train.")
