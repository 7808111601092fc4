"""`parfocal synthesize`: made-up data sets in the labs' own formats."""

from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    kind: Annotated[str, typer.Argument(help="smear or fundus.")],
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    images: Annotated[int | None, typer.Option(help="How many images, over all splits.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another set.")] = 0,
) -> None:
    """Draw a data set of blood smears or fundus photographs to try things out on.

    Example: `parfocal synthesize smear smears --images 2000`
    """
    from parfocal.synthetic.dataset import synthesize as draw

    typer.echo(f"Drawn: {draw(kind, folder, images, seed)}")
