"""`parfocal predict`: what a trained network says about new images."""

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders of them, or CSV files with a column Path.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The CSV file to write.")] = Path("predictions.csv"),
) -> None:
    """Write a CSV with the class and the probabilities of each image.

    Images that cannot be read are listed with reasons, the rest is kept, and the exit code is 1.

    Example: `parfocal predict runs/demo/resnet18 cells/ -o cells.csv`
    """
    from parfocal.evaluation.predict import predict as predict_images

    outcome = predict_images(run, images, out)
    typer.echo(f"{outcome.count} images predicted: {outcome.path}")
    for name, reason in outcome.unreadable.items():
        typer.echo(f"Not read: {name}: {reason}", err=True)
    if outcome.unreadable:
        raise typer.Exit(1)
