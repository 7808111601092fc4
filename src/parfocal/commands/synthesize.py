"""`parfocal synthesize`: create synthetic data sets in the formats of the two labs."""

from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    kind: Annotated[str, typer.Argument(help="smear or fundus.")],
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    images: Annotated[int | None, typer.Option(help="The number of images in all splits.")] = None,
    seed: Annotated[int, typer.Option(help="The random seed.")] = 0,
) -> None:
    """Create a synthetic data set of blood smears or fundus photographs, to try things out.

    Example: `parfocal synthesize smear smears --images 2000`
    """
    from parfocal.synthetic.dataset import synthesize as write_dataset

    typer.echo(f"Data set: {write_dataset(kind, folder, images, seed)}")
