"""The recipe `auto`: measure the data and the device, let the rules choose, and keep a reason beside each value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parfocal.data.split import read_and_split
from parfocal.documented import format_value
from parfocal.parts import ColumnsConfig, DataConfig, SplitConfig
from parfocal.recipe import Recipe, expand_recipes, load_recipe, validate_changes
from parfocal.recipe_file import AUTO
from parfocal.training.facts import Fingerprint, compute_fingerprint
from parfocal.training.rules import RULES, Choice

SET_BY_USER = "you said so"
"""The reason for a value that no rule chose."""

_DATA_KEYS = {"seed", *DataConfig.model_fields, *ColumnsConfig.model_fields, *SplitConfig.model_fields}


@dataclass(frozen=True)
class Plan:
    """A recipe and, where it was planned, the key, the value and the reason of each choice."""

    recipe: Recipe
    reasons: tuple[Choice, ...] = ()

    @property
    def user_keys(self) -> set[str]:
        """The keys that no rule chose."""
        return {key for key, _, reason in self.reasons if reason == SET_BY_USER}

    def to_markdown(self) -> str:
        """Return the plan as a page of text, to be kept with a run."""
        rows = "".join(f"| `{key}` | {format_value(value)} | {reason} |\n" for key, value, reason in self.reasons)
        return f"# Plan\n\n{self.recipe.about}\n\n| key | value | why |\n|---|---|---|\n{rows}"


def plan(data: Path | str, **changes: Any) -> Plan:
    """Plan a recipe for labelled images in any of the known layouts; `changes` are taken as they are."""
    said = validate_changes(changes)
    return plan_from_fingerprint(_fingerprint_data(data, _build_data_recipe(said)), said)


def plan_variants(data: Path | str, experiment: str = "", **changes: Any) -> dict[str, Plan]:
    """Return one plan for each combination of values given as lists, by run name."""
    known: dict[str, Fingerprint] = {}
    made: dict[str, Plan] = {}

    def make(_: object, **values: Any) -> Recipe:
        said = validate_changes(values)
        reading = _build_data_recipe(said)
        if reading.compute_hash() not in known:
            known[reading.compute_hash()] = _fingerprint_data(data, reading)
        one = plan_from_fingerprint(known[reading.compute_hash()], said)
        made[one.recipe.compute_hash()] = one
        return one.recipe

    recipes = expand_recipes(AUTO, experiment=experiment, load=make, **changes)
    return {name: made[one.compute_hash()] for name, one in recipes.items()}


def plan_from_fingerprint(fingerprint: Fingerprint, user_values: dict[str, Any]) -> Plan:
    """Choose a value for every key that a rule knows of; what is said is taken as it is."""
    taken = dict(user_values)
    reasons: list[Choice] = [(key, value, SET_BY_USER) for key, value in user_values.items()]
    for rule in RULES:
        for key, value, why in rule(fingerprint, taken):
            if key not in user_values:
                taken[key] = value
                reasons.append((key, value, why))
    about = f"Planned for {fingerprint.describe()}."
    return Plan(load_recipe(None, **{"name": AUTO, "about": about, **taken}), tuple(reasons))


def _build_data_recipe(user_values: dict[str, Any]) -> Recipe:
    """Return how labels are read and split, which is settled before anything can be measured."""
    return load_recipe(None, **{key: value for key, value in user_values.items() if key in _DATA_KEYS})


def _fingerprint_data(data: Path | str, data_recipe: Recipe) -> Fingerprint:
    return compute_fingerprint(read_and_split(data, data_recipe))
