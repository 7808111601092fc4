"""`parfocal recipes`: list the packaged recipes, explain a recipe, or list all keys."""

from pathlib import Path
from typing import Annotated

import typer

from parfocal.commands.options import complete_recipe

_AUTO_DESCRIPTION = "Planned from your data. See the plan and its reasons with `parfocal plan DATA`."


def recipes(
    name: Annotated[str | None, typer.Argument(help="The recipe to explain.", autocompletion=complete_recipe)] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List all keys of a recipe, with default and meaning.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the recipe to this file, to edit it.")] = None,
) -> None:
    """List the packaged recipes, explain a recipe, or list all keys.

    Example: `parfocal recipes leukemia -o mine.yaml`
    """
    from parfocal.commands.tables import print_table
    from parfocal.errors import UsageError
    from parfocal.io import write_text
    from parfocal.recipe import describe_keys, load_recipe
    from parfocal.recipe_file import AUTO, find_packaged_recipes, read_recipe_file

    if keys:
        print_table("key", "default", "meaning", rows=describe_keys())
    elif name is None:
        if out:
            raise UsageError("Choose the recipe to write: `parfocal recipes NAME -o FILE`")
        documented: list[tuple[str, ...]] = []
        others: list[tuple[str, ...]] = [(AUTO, _AUTO_DESCRIPTION, "")]
        for packaged in find_packaged_recipes():
            file = read_recipe_file(packaged)
            row = (packaged, load_recipe(packaged).about, " ".join(file.experiments))
            if file.document:
                documented.append((*row, file.document))
            else:
                others.append(row)
        typer.echo("Experiments of the source documents (one assignment, four reports)\n")
        print_table("recipe", "about", "experiments", "source", rows=documented)
        typer.echo("\nParfocal's own recipes\n")
        print_table("recipe", "about", "experiments", rows=others)
        typer.echo("\nExplain a recipe: parfocal recipes NAME")
    elif out:
        read_recipe_file(name)
        write_text(out, find_packaged_recipes().get(name, Path(name)).read_text(encoding="utf-8"))
        typer.echo(f"Recipe: {out}")
    elif name == AUTO:
        typer.echo(f"{AUTO}: {_AUTO_DESCRIPTION}\n\nparfocal plan DATA\nparfocal train DATA --recipe {AUTO}")
    else:
        _print_recipe(name)


def _print_recipe(name: str) -> None:
    from parfocal.commands.tables import print_table
    from parfocal.recipe import load_recipe
    from parfocal.recipe_file import read_recipe_file
    from parfocal.reported import describe_packaged_recipe

    file = read_recipe_file(name)
    typer.echo(f"{name}: {load_recipe(name).about}")
    if file.document:
        typer.echo(f"Source: {file.document}.")
    if file.run_before:
        typer.echo("\nRun first\n")
        typer.echo("\n".join(f"  {command}" for command in file.run_before))
    typer.echo("\nTrain\n")
    command = f"parfocal train DATA --recipe {name}"
    rows = [(command, "one network")]
    rows += [(f"{command} experiment={key}", _format_changes(changes)) for key, changes in file.experiments.items()]
    print_table("command", "trains", rows=rows)
    if file.reported:
        typer.echo("\nThe source document reports\n")
        rows = [
            (_format_changes(each.when) or "–", each.split, f"{'about ' if each.about else ''}{each.percent:g} %")
            for each in file.reported
        ]
        print_table("with", "split", "accuracy", rows=rows)
    typer.echo("\nValues of this recipe\n")
    print_table("key", "value", "default", "origin", "meaning", rows=describe_packaged_recipe(name))
    if file.notes:
        typer.echo("\nNotes\n")
        typer.echo("\n".join(f"- {note}" for note in file.notes))


def _format_changes(changes: dict[str, object]) -> str:
    """Format values, and lists of values, as on the command line."""
    texts = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in changes.items()}
    return " ".join(f"{key}={text}" for key, text in texts.items())
