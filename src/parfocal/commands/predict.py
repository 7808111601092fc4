"""`parfocal predict`: what trained networks say about new images."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... IMAGE...",
            help="Run folders, then image files, folders, CSV files with a column Path, or - for paths line by line.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The CSV file to write.")] = Path("predictions.csv"),
    sample: Annotated[
        Path | None, typer.Option(help="A sample submission, such as ID,label: write its rows, in its order.")
    ] = None,
) -> None:
    """Write a CSV with the class and the probabilities of each image, and what the run decided to tell beside.

    Several runs are averaged. Images that cannot be read are listed with reasons, the rest is kept, and the exit code
    is 1.

    Example: `parfocal predict runs/demo/resnet18 cells/ -o cells.csv`
    """
    from parfocal.errors import UsageError
    from parfocal.evaluation.predict import predict as predict_images
    from parfocal.evaluation.predict import split_runs_and_images

    runs, images = split_runs_and_images(arguments)
    if not images:
        raise UsageError("Name the images after the runs: files, folders, CSV files, or - for paths on standard input.")
    outcome = predict_images(runs, sys.stdin if images == ["-"] else images, out, sample)
    by = f" by the mean of {', '.join(outcome.run_names)}" if len(outcome.run_names) > 1 else ""
    typer.echo(f"{outcome.n_rows} images predicted{by}: {outcome.path}")
    for name, count in outcome.flag_counts.items():
        typer.echo(f"{name.capitalize()}: {count}")
    for name, reason in outcome.unreadable.items():
        typer.echo(f"Not read: {name}: {reason}", err=True)
    if outcome.unreadable:
        raise typer.Exit(1)
