"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from parfocal.commands.completion import complete_change, complete_recipe

DataArgument = Annotated[Path, typer.Argument(help="A folder of label files or images, a CSV file, or a .npz file.")]
ChangesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to keys of the recipe.", autocompletion=complete_change),
]
RecipeOption = Annotated[
    str | None, typer.Option(help="Name of a packaged recipe, or a YAML file.", autocompletion=complete_recipe)
]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders, or folders that contain run folders.")]
