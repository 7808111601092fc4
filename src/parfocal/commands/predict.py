"""`parfocal predict`: predict new images with trained networks."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... IMAGE...",
            help="Run folders, followed by image files, folders, CSV files with a Path column, or - to read paths from "
            "standard input.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The CSV file to write.")] = Path("predictions.csv"),
    sample_submission: Annotated[
        Path | None,
        typer.Option(help="A sample submission, such as a CSV file with ID,label: write its rows, in its order."),
    ] = None,
) -> None:
    """Predict new images and write a CSV with the class, the probabilities and the flags (positive, referred, unusual).

    The probabilities of all runs are averaged. If some images cannot be read or predicted, the command lists them
    with the reasons, writes the rest, and exits with 1.

    Example: `parfocal predict runs/demo/resnet18 cells/ -o cells.csv`
    """
    from parfocal.errors import UsageError
    from parfocal.evaluation.predict import predict as predict_images
    from parfocal.evaluation.predict import split_runs_and_images

    runs, images = split_runs_and_images(arguments)
    if not images:
        raise UsageError("List the images after the run folders, for example: `parfocal predict RUN images/`")
    result = predict_images(runs, sys.stdin if images == ["-"] else images, out, sample_submission)
    mean_of = f" with the mean of {', '.join(result.run_names)}" if len(result.run_names) > 1 else ""
    typer.echo(f"{result.n_rows} images predicted{mean_of}: {result.path}")
    for name, count in result.flag_counts.items():
        meaning = f" ({result.positive_name})" if name == "positive" else ""
        typer.echo(f"{name.capitalize()}{meaning}: {count}")
    for name, reason in result.unreadable.items():
        typer.echo(f"Not read: {name}: {reason}", err=True)
    for name in result.not_finite:
        typer.echo(f"Not predicted: {name}: a probability is not finite (NaN). Train the network again.", err=True)
    if result.unreadable or result.not_finite:
        raise typer.Exit(1)
