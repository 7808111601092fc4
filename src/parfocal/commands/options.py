"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DataArgument = Annotated[Path, typer.Argument(help="A folder of label files or images, a CSV file, or a .npz file.")]
ChangesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to keys of the recipe.")
]
RecipeOption = Annotated[str | None, typer.Option(help="Name of a packaged recipe, or a YAML file.")]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders, or folders that contain run folders.")]
