"""`parfocal train`: train networks on labeled images, and compare them."""

import time
from pathlib import Path
from typing import Annotated

import typer

from parfocal.commands.options import (
    AllowCodeOption,
    ChangesArgument,
    DataArgument,
    complete_recipe,
    name_allow_code_flag,
)


def train(
    data: DataArgument,
    changes: ChangesArgument = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Name of a packaged recipe, a YAML file, or auto.", autocompletion=complete_recipe),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for the runs. [default: runs/DATA-RECIPE]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the runs that were interrupted.")] = False,
    allow_code: AllowCodeOption = None,
) -> None:
    """Train a network, or train networks and compare them.

    Values separated by commas train a run each; so does an experiment of the recipe (`experiment=depth`). The runs
    are compared at the end. `--recipe auto` plans a recipe from the data. The file `report.html` in the run folder is
    updated after each epoch.

    Example: `parfocal train smears --recipe leukemia model=resnet18,resnet50,resnet152 epochs=20`
    """
    started_at = time.perf_counter()

    from parfocal.errors import ParfocalError
    from parfocal.recipe import expand_recipes, parse_changes
    from parfocal.recipe_file import AUTO

    values = parse_changes(changes or [])
    if recipe != AUTO:
        # Report mistakes in the recipe before the imports below, which take seconds.
        expand_recipes(recipe, **values)

    from parfocal.commands.tables import print_comparison, print_results
    from parfocal.engine.distributed import is_rank_zero
    from parfocal.report.live import make_live_callback
    from parfocal.report.report import compare
    from parfocal.training.train import train as train_runs

    try:
        with name_allow_code_flag():
            runs = train_runs(
                data,
                recipe,
                out=out,
                resume=resume,
                after_epoch=make_live_callback(),
                allow_code=allow_code or (),
                show_line=typer.echo,
                started_at=started_at,
                **values,
            )
    except KeyboardInterrupt:
        raise ParfocalError("Interrupted. To resume, run the same command with --resume.") from None
    if not is_rank_zero():
        return
    if len(runs) == 1:
        comparison = compare(runs[0].folder)
        print_results(runs)
    else:
        for run in runs:
            compare(run.folder)
        comparison = compare(runs)
        print_comparison(runs, comparison)
    for run in runs:
        for alarm in run.read_metrics()["alarms"]:
            typer.echo(f"Warning: {run.name}: {alarm['text']}")
    typer.echo(f"Report: {comparison.report_path}")
