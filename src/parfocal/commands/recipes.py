"""`parfocal recipes`: which recipes there are, what one decides, and what its document reports."""

from pathlib import Path
from typing import Annotated

import typer

_AUTO_DESCRIPTION = "Planned from your data: `parfocal plan DATA` says how and why."


def recipes(
    name: Annotated[str | None, typer.Argument(help="Explain this recipe.")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key a recipe can have, and what it means.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the recipe to this file, to change.")] = None,
) -> None:
    """List the packaged recipes, explain one, or list the keys.

    Example: `parfocal recipes leukemia -o mine.yaml`
    """
    from parfocal.commands.tables import print_table
    from parfocal.errors import UsageError
    from parfocal.io import write_text
    from parfocal.recipe import describe_keys
    from parfocal.recipe_file import AUTO, find_packaged_recipes, read_recipe_file

    if keys:
        print_table("key", "default", "meaning", rows=describe_keys())
    elif name is None:
        if out:
            raise UsageError("Say which recipe to write: `parfocal recipes NAME -o FILE`.")
        _print_list()
    elif out:
        read_recipe_file(name)
        write_text(out, find_packaged_recipes().get(name, Path(name)).read_text(encoding="utf-8"))
        typer.echo(f"Written: {out}")
    elif name == AUTO:
        typer.echo(f"{AUTO}: {_AUTO_DESCRIPTION}\n\nparfocal plan DATA\nparfocal train DATA --recipe {AUTO}")
    else:
        _print_recipe(name)


def _print_list() -> None:
    from parfocal.commands.tables import print_table
    from parfocal.recipe import load_recipe
    from parfocal.recipe_file import AUTO, find_packaged_recipes, read_recipe_file

    files = {name: read_recipe_file(name) for name in find_packaged_recipes()}
    rows = {
        name: (name, load_recipe(name).about, " ".join(file.experiments), file.document) for name, file in files.items()
    }
    typer.echo("The documents' experiments\n")
    documents = [row for name, row in rows.items() if files[name].document]
    print_table("recipe", "about", "experiments", "from", rows=documents)
    typer.echo("\nOurs\n")
    ours = [row[:3] for name, row in rows.items() if not files[name].document]
    print_table("recipe", "about", "experiments", rows=[(AUTO, _AUTO_DESCRIPTION, ""), *ours])
    typer.echo("\nMore about one: parfocal recipes NAME")


def _print_recipe(name: str) -> None:
    from parfocal.commands.tables import print_table
    from parfocal.recipe import load_recipe
    from parfocal.recipe_file import read_recipe_file
    from parfocal.reported import describe_packaged_recipe

    file = read_recipe_file(name)
    typer.echo(f"{name}: {load_recipe(name).about}")
    if file.document:
        typer.echo(f"From: {file.document}.")
    if file.run_before:
        typer.echo("\nFirst\n")
        typer.echo("\n".join(f"  {command}" for command in file.run_before))
    typer.echo("\nTo run it\n")
    command = f"parfocal train DATA --recipe {name}"
    compared = [(f"{command} experiment={one}", _format_changes(values)) for one, values in file.experiments.items()]
    print_table("command", "trains", rows=[(command, "one network"), *compared])
    if file.reported:
        typer.echo("\nThe document reports\n")
        rows = [(_format_changes(one.when) or "–", one.split, f"{one.percent:g} %") for one in file.reported]
        print_table("with", "split", "accuracy", rows=rows)
    typer.echo("\nWhat it decides\n")
    print_table("key", "value", "default", "whose", "meaning", rows=describe_packaged_recipe(name))
    if file.notes:
        typer.echo("\nTo know\n")
        typer.echo("\n".join(f"- {note}" for note in file.notes))


def _format_changes(changes: dict[str, object]) -> str:
    """Write values, and lists of values, as on the command line."""
    texts = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in changes.items()}
    return " ".join(f"{key}={text}" for key, text in texts.items())
