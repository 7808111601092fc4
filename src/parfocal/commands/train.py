"""`parfocal train`: from labelled images to trained and compared networks."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[Path, typer.Argument(help="Folder of label files or images, a sheet, or a .npz file.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A packaged recipe's name, a YAML file, or auto.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the runs. [default: runs/DATA-RECIPE]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what was begun in the folder.")] = False,
) -> None:
    """Train one network, or several and compare them.

    Values with commas train one run each, and so do those of an experiment of the recipe (`experiment=depth`); the
    runs are compared at the end. `--recipe auto` plans from the data. `report.html` in a run's folder is redrawn after
    each epoch.

    Example: `parfocal train smears --recipe leukemia model=resnet18,resnet50,resnet152 epochs=20`
    """
    from parfocal.errors import ParfocalError
    from parfocal.recipe import expand_recipes, parse_changes
    from parfocal.recipe_file import AUTO

    settled = parse_changes(changes or [])
    if recipe != AUTO:
        # Here only for what is wrong with it, which is told before the seconds that the next imports take.
        expand_recipes(recipe, **settled)

    from parfocal.commands.tables import print_comparison, print_results
    from parfocal.engine.distributed import is_rank_zero
    from parfocal.report.live import make_live_callback
    from parfocal.report.report import compare
    from parfocal.training.train import train as run_training

    try:
        runs = run_training(data, recipe, out=out, resume=resume, after_epoch=make_live_callback(), **settled)
    except KeyboardInterrupt:
        raise ParfocalError("Stopped. The same command with --resume goes on where it was.") from None
    if not is_rank_zero():
        return
    comparison = [compare(run.folder) for run in runs][-1]
    if len(runs) == 1:
        print_results(runs)
    else:
        comparison = compare(runs)
        print_comparison(runs, comparison)
    for run in runs:
        for alarm in run.read_metrics()["alarms"]:
            typer.echo(f"Warning: {run.name}: {alarm['text']}")
    typer.echo(f"Report: {comparison.report_path}")
