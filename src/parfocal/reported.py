"""What the source documents report and state, for the packaged recipes that reproduce them."""

from typing import Any

from parfocal.recipe import Recipe, describe_keys, find_differences, format_value, get_value, load_recipe
from parfocal.recipe_file import find_packaged_recipes, read_recipe_file
from parfocal.recipe_schema import AUTO_INIT

_IGNORED_KEYS = ("name", "about", "seed", "data.", "columns.", "machine.", "network.init")


def find_reported_accuracy(recipe: Recipe) -> dict[str, float]:
    """Return the accuracy, 0 to 1, that the source document reports for this network and initialization, by split."""
    if recipe.name not in find_packaged_recipes():
        return {}
    return {
        reported.split: reported.percent / 100
        for reported in read_recipe_file(recipe.name).reported
        if all(get_value(recipe, key) == value for key, value in reported.when.items())
    }


def has_source_document(recipe: Recipe) -> bool:
    """Return whether a recipe is a packaged one that reproduces a source document."""
    return recipe.name in find_packaged_recipes() and bool(read_recipe_file(recipe.name).document)


def find_prerequisites(recipe: Recipe) -> tuple[str, ...]:
    """Return the commands to run before a packaged recipe."""
    return read_recipe_file(recipe.name).run_before if recipe.name in find_packaged_recipes() else ()


def find_deviations(recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which a recipe deviates from its source document, with both values.

    The network and the initial weights are not deviations, because a document compares them. Neither are the seed
    and how labels are read.
    """
    if recipe.name not in find_packaged_recipes():
        return {}
    packaged = load_recipe(recipe.name, model=recipe.network.model)
    if packaged.network.init == AUTO_INIT:
        packaged = load_recipe(packaged, init=recipe.network.init)
    changed = find_differences(packaged, recipe)
    return {key: values for key, values in changed.items() if not key.startswith(_IGNORED_KEYS)}


def describe_packaged_recipe(name: str) -> list[tuple[str, str, str, str, str]]:
    """Return every key that a packaged recipe sets: full key, value, default, source or assumption, description."""
    file = read_recipe_file(name)
    recipe = load_recipe(name)
    keys = {key for section in file.choices.values() if isinstance(section, dict) for key in section}
    keys |= {key for changes in file.by_start.values() for key in changes}
    rows: list[tuple[str, str, str, str, str]] = []
    for full_key, default, description in describe_keys():
        key = full_key.rpartition(".")[2]
        if key not in keys and key not in file.assumptions:
            continue
        special_values = [
            f"{name}: {format_value(changes[key])}"
            for name, changes in [*file.by_start.items(), *file.networks.items()]
            if key in changes
        ]
        is_replaced = len(file.by_start) == 2 and all(key in changes for changes in file.by_start.values())
        values = special_values if is_replaced else [format_value(get_value(recipe, key)), *special_values]
        if key in file.assumptions:
            source = f"assumption: {file.assumptions[key]}"
        else:
            source = "source document" if file.document else "Parfocal"
        rows.append((full_key, "; ".join(values), default, source, description))
    return rows
