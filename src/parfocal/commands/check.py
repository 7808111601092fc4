"""`parfocal check`: find a data set's faults before training does."""

from pathlib import Path
from typing import Annotated

import typer


def check(
    data: Annotated[Path, typer.Argument(help="Folder of label files or images, a sheet, or a .npz file.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A packaged recipe's name, or a YAML file.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Also write JSON, or a .html page with pictures and JSON beside."),
    ] = None,
) -> None:
    """Find faults: bad and doubled images, labels, patients across splits, shortcuts to the label.

    The exit code is 1 if training would refuse the data.

    Example: `parfocal check smears -o check.html`
    """
    from parfocal.commands.tables import print_table
    from parfocal.data.checks import check as find_faults
    from parfocal.data.findings import apply_waivers
    from parfocal.data.split import read_and_split
    from parfocal.io import write_json
    from parfocal.recipe import load_recipe as find_recipe
    from parfocal.recipe import parse_changes
    from parfocal.report.check_page import write_check_page

    chosen = find_recipe(recipe, **parse_changes(changes or []))
    table = read_and_split(data, chosen)
    findings = apply_waivers(find_faults(table, chosen.images, chosen.seed), chosen.data.allow)
    typer.echo(f"{len(table)} rows from {table.source}.")
    rows = [(one.severity, one.code, f"{one.message} {one.remedy}".strip()) for one in findings]
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
