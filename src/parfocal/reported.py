"""What the source documents report and state, for the packaged recipes that reproduce them."""

from collections.abc import Mapping
from typing import Any

from parfocal.recipe import (
    Recipe,
    describe_keys,
    expand_recipes,
    find_differences,
    format_value,
    get_value,
    load_recipe,
)
from parfocal.recipe_file import ReportedAccuracy, find_packaged_recipes, read_recipe_file
from parfocal.recipe_schema import AUTO_INIT

_IGNORED_KEYS = ("name", "about", "seed", "data.", "columns.", "machine.")


def find_reported_accuracies(recipe: Recipe) -> dict[str, ReportedAccuracy]:
    """Return what the source document reports for this network and its initial weights, by split."""
    if recipe.name not in find_packaged_recipes():
        return {}
    packaged_init = load_recipe(recipe.name).network.init
    return {
        reported.split: reported
        for reported in read_recipe_file(recipe.name).reported
        if all(get_value(recipe, key) == value for key, value in {"init": packaged_init, **reported.when}.items())
    }


def has_source_document(recipe: Recipe) -> bool:
    """Return whether a recipe is a packaged one that reproduces a source document."""
    return recipe.name in find_packaged_recipes() and bool(read_recipe_file(recipe.name).document)


def find_prerequisites(recipe: Recipe) -> tuple[str, ...]:
    """Return the commands to run before a packaged recipe."""
    return read_recipe_file(recipe.name).run_before if recipe.name in find_packaged_recipes() else ()


def find_deviations(recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which a recipe deviates from its source document, with both values.

    A document can have several experiments. The recipe is compared with those whose reported accuracies apply to it,
    otherwise with the most similar one. The network is not a deviation, and neither are the seed and how labels are
    read.
    """
    if recipe.name not in find_packaged_recipes():
        return {}
    reported = [_load_variant(recipe, accuracy.when) for accuracy in find_reported_accuracies(recipe).values()]
    deviations = [
        {key: values for key, values in find_differences(variant, recipe).items() if not key.startswith(_IGNORED_KEYS)}
        for variant in reported or _list_variants(recipe)
    ]
    return min(deviations, key=len)


def _list_variants(recipe: Recipe) -> list[Recipe]:
    """Return what the packaged recipe of the same name trains with this network: by itself and in its experiments."""
    variants = [_load_variant(recipe, {})]
    for experiment in read_recipe_file(recipe.name).experiments:
        expanded = expand_recipes(recipe.name, experiment=experiment, model=recipe.network.model).values()
        variants += [variant for variant in expanded if variant.name == recipe.name]
    return variants


def _load_variant(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return the packaged recipe of the same name with these changes and the network of `recipe`."""
    variant = load_recipe(recipe.name, **{**changes, "model": recipe.network.model})
    return load_recipe(variant, init=recipe.network.init) if variant.network.init == AUTO_INIT else variant


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
