"""`parfocal recipes`: which recipes there are, and what one decides."""

from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe, fully resolved, as YAML.")] = None,
) -> None:
    """List the packaged recipes, or show one.

    Example: `parfocal recipes leukemia > mine.yaml`
    """
    import yaml

    from parfocal.commands.tables import plain_table
    from parfocal.recipe import packaged, recipe

    if name:
        typer.echo(yaml.safe_dump(recipe(name).model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)
        return
    plain_table("recipe", "about", rows=[(one, recipe(one).about) for one in packaged()])
