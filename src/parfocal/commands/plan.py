"""`parfocal plan`: plan a recipe that fits a data set and a device, with the reason for each choice."""

from pathlib import Path
from typing import Annotated

import typer

from parfocal.commands.options import DataArgument, complete_change


def plan(
    data: DataArgument,
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Keys of the recipe to set yourself.", autocompletion=complete_change
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the recipe to this file.")] = None,
) -> None:
    """Plan a recipe from the data and the device. Values that you set yourself are kept.

    `parfocal train DATA --recipe auto` plans the same recipe, saves the reasons with the run, and trains.

    Example: `parfocal plan smears epochs=20 -o mine.yaml`
    """
    from parfocal.commands.tables import print_table
    from parfocal.recipe import format_value, parse_changes
    from parfocal.training.autoconfig import plan as plan_recipe

    planned = plan_recipe(data, **parse_changes(changes or []))
    typer.echo(f"{planned.recipe.about}\n")
    rows = [(key, format_value(value), reason) for key, value, reason in planned.reasons]
    print_table("key", "value", "reason", rows=rows)
    if out:
        planned.recipe.save(out)
        typer.echo(f"\nRecipe: {out}")
