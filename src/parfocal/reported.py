"""What the packaged recipes' documents say, beside what a recipe decides: figures, values, and what was chosen."""

from typing import Any

import yaml

from parfocal.recipe import Recipe, describe_keys, find_differences, list_keys, load_recipe
from parfocal.recipe_file import find_packaged_recipes, read_recipe_file

_IGNORED_KEYS = ("name", "about", "seed", "data.", "columns.", "machine.", "network.init")


def flag_documented_recipes() -> dict[str, bool]:
    """Return the packaged recipes, and whether each is an experiment of a document."""
    return {name: bool(read_recipe_file(name).document) for name in find_packaged_recipes()}


def find_reported_accuracy(one: Recipe) -> dict[str, float]:
    """Return the accuracy, 0 to 1, that a recipe's document reports for its network and start, by split."""
    if one.name not in find_packaged_recipes():
        return {}
    return {
        figure.split: figure.percent / 100
        for figure in read_recipe_file(one.name).reported
        if all(_get_value(one, key) == value for key, value in figure.when.items())
    }


def find_prerequisites(one: Recipe) -> tuple[str, ...]:
    """Return the commands that a packaged recipe needs to have been run before it."""
    return read_recipe_file(one.name).first if one.name in find_packaged_recipes() else ()


def find_deviations(one: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the keys in which a recipe is no longer as its document has it, with both values.

    The network and the start, of which a document compares several, the seed and how labels are read do not count.
    """
    if one.name not in find_packaged_recipes():
        return {}
    changed = find_differences(load_recipe(one.name, model=one.network.model), one)
    return {key: both for key, both in changed.items() if not key.startswith(_IGNORED_KEYS)}


def describe_packaged_recipe(name: str) -> list[tuple[str, str, str, str, str]]:
    """Return every key that a packaged recipe's file decides: in full, its value, its default, whose it is, meaning.

    A value is the document's, or it was chosen, with the reason; of our own recipes it is ours.
    """
    file, own = read_recipe_file(name), load_recipe(name)
    written = {key for part in file.choices.values() if isinstance(part, dict) for key in part}
    rows: list[tuple[str, str, str, str, str]] = []
    for place, default, meaning in describe_keys():
        key = place.rpartition(".")[2]
        if key not in written | set(file.chosen):
            continue
        others = [
            f"{model}: {format_value(changes[key])}" for model, changes in file.networks.items() if key in changes
        ]
        whose = f"chosen: {file.chosen[key]}" if key in file.chosen else "the document" if file.document else "ours"
        rows.append((place, "; ".join([format_value(_get_value(own, key)), *others]), default, whose, meaning))
    return rows


def _get_value(one: Recipe, key: str) -> Any:
    value: Any = one
    for step in list_keys()[key]:
        value = getattr(value, step)
    return value


def format_value(value: Any) -> str:
    """Write a value as one would on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(format_value(one) for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else yaml.safe_dump(value).splitlines()[0].strip("'")
