"""`parfocal prepare`: decode and preprocess all images once, before training."""

import typer

from parfocal.commands.options import ChangesArgument, DataArgument, RecipeOption


def prepare(data: DataArgument, changes: ChangesArgument = None, recipe: RecipeOption = None) -> None:
    """Decode and preprocess all images once, so that training reads prepared pixels.

    Training does this itself if needed. The pixels are stored in $PARFOCAL_STORES, or in the user's cache folder.

    Example: `parfocal prepare smears --recipe leukemia`
    """
    from parfocal.data.bit_depth import resolve_bit_depth
    from parfocal.data.split import read_and_split
    from parfocal.data.store import prepare as fill_store
    from parfocal.recipe import load_recipe, parse_changes

    loaded = load_recipe(recipe, **parse_changes(changes or []))
    # The bit depth is that of the training images, so the data is split as for training.
    table, images = resolve_bit_depth(read_and_split(data, loaded), loaded.images)
    store = fill_store(table, images)
    unreadable = store.index[store.index["error"] != ""]
    size = loaded.images.size
    typer.echo(f"{len(store.index) - len(unreadable)} images of {size}×{size}: {store.folder}")
    for path, reason in zip(unreadable["path"], unreadable["error"], strict=True):
        typer.echo(f"Not read: {path}: {reason}", err=True)
    if len(unreadable):
        raise typer.Exit(1)
