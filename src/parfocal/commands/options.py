"""Arguments and options that commands share, and shell completion of recipes, networks and recipe keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer


def complete_recipe(incomplete: str) -> list[str]:
    """Return the packaged recipes, `auto`, and the YAML files and folders that begin with the typed text."""
    from parfocal.recipe_file import AUTO, find_packaged_recipes

    names = [name for name in (*find_packaged_recipes(), AUTO) if name.startswith(incomplete)]
    folder, _, prefix = incomplete.rpartition("/")
    paths = sorted(
        path for path in Path(f"{folder}/" if "/" in incomplete else "").glob("*") if path.name.startswith(prefix)
    )
    files = [str(path) for path in paths if path.suffix in (".yaml", ".yml")]
    return [*names, *files, *(f"{path}/" for path in paths if path.is_dir())]


def complete_change(incomplete: str) -> list[str]:
    """Return `key=` for the typed beginning of a recipe key, or `key=value` for the choices of a typed key.

    The value may be a list: the last item after a comma is completed.
    """
    from parfocal.models.architectures import ARCHITECTURES
    from parfocal.recipe import list_choices, list_keys

    keys = {**list_keys(), **{".".join(key): key for key in list_keys().values()}}
    name, equals, text = incomplete.partition("=")
    if not equals:
        matches = [f"{key}=" for key in keys if key.startswith(name)]
        return [match for match in matches if "." not in match] or matches
    if name not in keys:
        return []
    choices = list(ARCHITECTURES) if keys[name][-1] == "model" else list_choices(keys[name])
    earlier, comma, last = text.rpartition(",")
    return [f"{name}={earlier}{comma}{choice}" for choice in choices if choice.startswith(last)]


DataArgument = Annotated[Path, typer.Argument(help="A folder of label files or images, a CSV file, or a .npz file.")]
ChangesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to keys of the recipe.", autocompletion=complete_change),
]
RecipeOption = Annotated[
    str | None, typer.Option(help="Name of a packaged recipe, or a YAML file.", autocompletion=complete_recipe)
]
AllowCodeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-code",
        metavar="MODULE",
        help="Run code of this Python module if the recipe names it (custom_transform). Can be repeated.",
    ),
]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders, or folders that contain run folders.")]


@contextmanager
def name_allow_code_flag() -> Iterator[None]:
    """Name the flag in the error for code of a recipe that was not allowed."""
    from parfocal.data.custom_transform import CodeNotAllowedError
    from parfocal.errors import UsageError

    try:
        yield
    except CodeNotAllowedError as error:
        raise UsageError(f"{error.problem} If you trust it, add: --allow-code {error.module}") from None
