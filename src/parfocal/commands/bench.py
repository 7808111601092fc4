"""`parfocal bench`: what holds training up, on one's own data and machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parfocal.training.doctor import Figures


def bench(
    data: Annotated[Path, typer.Argument(help="Folder of label files or images, a sheet, or a .npz file.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A packaged recipe's name, or a YAML file.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure, beside preparing.")] = 30,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write JSON.")] = None,
) -> None:
    """Find what holds training up: loading, the step, or memory; and what to change.

    Measured are loading alone, the training step alone, and both together. No run is begun.

    Example: `parfocal bench smears --recipe leukemia model=resnet50`
    """
    from dataclasses import asdict

    from parfocal.commands.tables import plain_table
    from parfocal.files import write_json
    from parfocal.recipe import parse_changes
    from parfocal.recipe import recipe as find_recipe
    from parfocal.training.speed import bench as measure

    chosen = find_recipe(recipe, **parse_changes(changes or []))
    found = measure(data, chosen, seconds=seconds)
    plain_table("measured", "rate", "unit", rows=_rows(found.figures))
    typer.echo(f"\n{found.text}")
    typer.echo("What to change, the most promising first:")
    for change in found.changes:
        typer.echo(f"- {change}")
    if out:
        write_json(out, {**asdict(found), "recipe": chosen.model_dump(mode="json")})
        typer.echo(f"Figures: {out}")


def _rows(figures: "Figures") -> list[tuple[str, str, str]]:
    rows = [
        ("loading alone", f"{figures.loading:,.1f}", "images/s"),
        ("step alone", f"{figures.step:,.1f}", "images/s"),
        ("both together", f"{figures.together:,.1f}", "images/s"),
        ("waiting for batches", f"{figures.waiting:.1%}", "of the time"),
        ("network's work", f"{figures.work:,.1f}", "GFLOP an image, there and back"),
        ("work done by the step", f"{figures.step * figures.work:,.0f}", f"GFLOP/s in {figures.precision}"),
        *((f"matrices in {name}", f"{rate:,.0f}", "GFLOP/s") for name, rate in figures.matrix.items()),
        ("share of that", f"{figures.share:.0%}", f"of {figures.precision}'s"),
    ]
    if figures.card_memory:
        rows.append(("memory", f"{figures.card_used:.1f}", f"of {figures.card_memory:.1f} GB on the graphics card"))
    return rows
