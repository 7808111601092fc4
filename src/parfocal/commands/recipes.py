"""`parfocal recipes`: which recipes there are, and what one decides."""

from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe, fully resolved, as YAML.")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key a recipe can have, and what it means.")] = False,
) -> None:
    """List the packaged recipes, show one, or list the keys.

    Example: `parfocal recipes leukemia > mine.yaml`
    """
    import yaml

    from parfocal.commands.tables import plain_table
    from parfocal.recipe import described, packaged, recipe

    if name:
        typer.echo(yaml.safe_dump(recipe(name).model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
        return
    if keys:
        plain_table("key", "default", "meaning", rows=described())
        return
    plain_table("recipe", "about", rows=[(one, recipe(one).about) for one in packaged()])
