"""`parfocal bench`: find what limits the training speed on this data and this machine."""

from pathlib import Path
from typing import Annotated

import typer

from parfocal.commands.options import (
    AllowCodeOption,
    ChangesArgument,
    DataArgument,
    RecipeOption,
    name_allow_code_flag,
)


def bench(
    data: DataArgument,
    changes: ChangesArgument = None,
    recipe: RecipeOption = None,
    seconds: Annotated[float, typer.Option(help="How long to measure, in addition to preparing the images.")] = 30,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the results to this JSON file.")] = None,
    allow_code: AllowCodeOption = None,
) -> None:
    """Find what limits the training speed (data loading, the training step, or memory), and what to change.

    It measures data loading alone, the training step alone, and both together. It does not train a network.

    Example: `parfocal bench smears --recipe leukemia model=resnet50`
    """
    from dataclasses import asdict

    from parfocal.commands.tables import print_table
    from parfocal.io import write_json
    from parfocal.recipe import load_recipe, parse_changes
    from parfocal.training.benchmark import bench as measure_speed

    values = parse_changes(changes or [])
    loaded = load_recipe(recipe, **values)
    with name_allow_code_flag():
        diagnosis = measure_speed(data, recipe, seconds=seconds, allow_code=allow_code or (), **values)
    measurements = diagnosis.measurements
    step_gflops = measurements.step_rate * measurements.gflop_per_image
    rows = [
        ("data loading alone", f"{measurements.loading_rate:,.1f}", "images/s"),
        ("training step alone", f"{measurements.step_rate:,.1f}", "images/s"),
        ("both together", f"{measurements.epoch_rate:,.1f}", "images/s"),
        ("waiting for batches", f"{measurements.waiting:.1%}", "of the time"),
        ("work per image", f"{measurements.gflop_per_image:,.1f}", "GFLOP, forward and backward"),
        ("work of the step", f"{step_gflops:,.0f}", f"GFLOP/s in {measurements.precision}"),
    ]
    rows += [
        (f"matrix multiplication, {precision}", f"{rate:,.0f}", "GFLOP/s")
        for precision, rate in measurements.matmul_gflops.items()
    ]
    rows.append(("FLOPs utilization", f"{measurements.flops_utilization:.0%}", f"of {measurements.precision}"))
    if measurements.gpu_memory_gb:
        rows.append(("memory", f"{measurements.gpu_used_gb:.1f}", f"of {measurements.gpu_memory_gb:.1f} GB on the GPU"))
    print_table("measurement", "rate", "unit", rows=rows)
    typer.echo(f"\n{diagnosis.message}")
    typer.echo("What to change, most promising first:")
    for suggestion in diagnosis.suggestions:
        typer.echo(f"- {suggestion}")
    if out:
        write_json(out, {**asdict(diagnosis), "recipe": loaded.model_dump(mode="json")})
        typer.echo(f"Results: {out}")
