"""`parfocal plan`: the recipe that suits a data set and a device, with a reason beside each choice."""

from pathlib import Path
from typing import Annotated

import typer


def plan(
    data: Annotated[Path, typer.Argument(help="Folder of label files or images, a sheet, or a .npz file.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to settle beforehand.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the recipe to this file.")] = None,
) -> None:
    """Look at the data and the device, and plan a recipe. What you say is taken as it is.

    `parfocal train DATA --recipe auto` plans the same, keeps the reasons with the run, and trains.

    Example: `parfocal plan smears epochs=20 -o mine.yaml`
    """
    from parfocal.commands.tables import print_table
    from parfocal.recipe import parse_changes
    from parfocal.reported import format_value
    from parfocal.training.autoconfig import plan as make_plan

    made = make_plan(data, **parse_changes(changes or []))
    typer.echo(f"{made.recipe.about}\n")
    print_table("key", "value", "reason", rows=[(key, format_value(value), why) for key, value, why in made.reasons])
    if out:
        made.recipe.save(out)
        typer.echo(f"\nRecipe: {out}")
