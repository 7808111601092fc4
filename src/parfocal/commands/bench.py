"""`parfocal bench`: what holds training up, on one's own data and machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parfocal.training.diagnosis import Measurements


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

    from parfocal.commands.tables import print_table
    from parfocal.io import write_json
    from parfocal.recipe import load_recipe as find_recipe
    from parfocal.recipe import parse_changes
    from parfocal.training.benchmark import bench as measure

    chosen = find_recipe(recipe, **parse_changes(changes or []))
    found = measure(data, chosen, seconds=seconds)
    print_table("measured", "rate", "unit", rows=_table_rows(found.measurements))
    typer.echo(f"\n{found.message}")
    typer.echo("What to change, the most promising first:")
    for change in found.suggestions:
        typer.echo(f"- {change}")
    if out:
        write_json(out, {**asdict(found), "recipe": chosen.model_dump(mode="json")})
        typer.echo(f"Figures: {out}")


def _table_rows(measurements: "Measurements") -> list[tuple[str, str, str]]:
    rows = [
        ("loading alone", f"{measurements.loading_rate:,.1f}", "images/s"),
        ("step alone", f"{measurements.step_rate:,.1f}", "images/s"),
        ("both together", f"{measurements.epoch_rate:,.1f}", "images/s"),
        ("waiting for batches", f"{measurements.waiting:.1%}", "of the time"),
        ("network's work", f"{measurements.gflop_per_image:,.1f}", "GFLOP an image, there and back"),
        (
            "work done by the step",
            f"{measurements.step_rate * measurements.gflop_per_image:,.0f}",
            f"GFLOP/s in {measurements.precision}",
        ),
        *((f"matrices in {name}", f"{rate:,.0f}", "GFLOP/s") for name, rate in measurements.matmul_gflops.items()),
        ("share of that", f"{measurements.flops_utilization:.0%}", f"of {measurements.precision}'s"),
    ]
    if measurements.gpu_memory_gb:
        rows.append(
            (
                "memory",
                f"{measurements.gpu_used_gb:.1f}",
                f"of {measurements.gpu_memory_gb:.1f} GB on the graphics card",
            )
        )
    return rows
