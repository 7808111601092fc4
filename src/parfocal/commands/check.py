"""`parfocal check`: find a data set's faults before training does."""

from pathlib import Path
from typing import Annotated

import typer


def check(
    data: Annotated[Path, typer.Argument(help="Folder that holds the label files.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A packaged recipe's name, or a YAML file.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the findings as JSON.")] = None,
) -> None:
    """Find faults: unreadable and missing files, labels, patients or identical images across splits.

    The exit code is 1 if training would refuse the data.

    Example: `parfocal check smears -o findings.json`
    """
    from parfocal.data.check import check as find_faults
    from parfocal.data.readers import read
    from parfocal.data.split import with_splits
    from parfocal.files import write_json
    from parfocal.recipe import parse_changes
    from parfocal.recipe import recipe as find_recipe

    chosen = find_recipe(recipe, **parse_changes(changes or []))
    table = with_splits(read(data, chosen), chosen.split, chosen.seed)
    findings = find_faults(table, chosen.images)
    typer.echo(f"{len(table)} rows from {table.source}.")
    for finding in findings:
        typer.echo(f"{finding.severity:>8}  {finding.text} {finding.mend}".rstrip())
    if out:
        write_json(out, {"source": table.source, "findings": [finding.as_dict() for finding in findings]})
        typer.echo(f"Findings: {out}")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)
    typer.echo("Ready to train.")
