"""`parfocal prepare`: decode and frame every image once, ahead of training."""

from pathlib import Path
from typing import Annotated

import typer


def prepare(
    data: Annotated[Path, typer.Argument(help="Folder of label files or images, a sheet, or a .npz file.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A packaged recipe's name, or a YAML file.")] = None,
) -> None:
    """Decode and frame every image once, so that training finds its pixels ready.

    Training does this by itself when needed. Pixels are kept in $PARFOCAL_STORES, or in the user's cache.

    Example: `parfocal prepare smears --recipe leukemia`
    """
    from parfocal.data.layouts import read
    from parfocal.data.store import prepare as fill_store
    from parfocal.recipe import load_recipe as find_recipe
    from parfocal.recipe import parse_changes

    chosen = find_recipe(recipe, **parse_changes(changes or []))
    store = fill_store(read(data, chosen), chosen.images)
    bad = store.index[store.index["error"] != ""]
    typer.echo(f"{len(store.index) - len(bad)} images of {chosen.images.size}×{chosen.images.size}: {store.folder}")
    for path, reason in zip(bad["path"], bad["error"], strict=True):
        typer.echo(f"Not read: {path}: {reason}", err=True)
    if len(bad):
        raise typer.Exit(1)
