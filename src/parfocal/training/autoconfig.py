"""The recipe `auto`: plan a recipe from the fingerprint of the data and the device, with a reason for each value.

Values that the user sets come first. The rules choose all others, each from the fingerprint and what is chosen so far.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parfocal.data.split import read_and_split
from parfocal.markdown import escape_markdown, format_code, format_markdown_table
from parfocal.models.auto_init import Start, find_start
from parfocal.recipe import Recipe, expand_recipes, load_recipe, validate_changes
from parfocal.recipe_file import AUTO
from parfocal.recipe_schema import AUTO_INIT, ColumnsConfig, DataConfig, SplitConfig
from parfocal.reported import format_value
from parfocal.training.auto_rules import RULES, Choice
from parfocal.training.fingerprint import Fingerprint, compute_fingerprint

SET_BY_USER = "set by you"
"""The reason for a value that the user has set."""

_DATA_KEYS = {"seed", *DataConfig.model_fields, *ColumnsConfig.model_fields, *SplitConfig.model_fields}


@dataclass(frozen=True)
class Plan:
    """A recipe; if it was planned, also the key, the value and the reason of each choice, and the fingerprint."""

    recipe: Recipe
    reasons: tuple[Choice, ...] = ()
    fingerprint: Fingerprint | None = None

    @property
    def user_keys(self) -> set[str]:
        """The keys that the user has set."""
        return {key for key, _, reason in self.reasons if reason == SET_BY_USER}

    def resolve_init(self, start: Start) -> "Plan":
        """Return the plan with the initial weights `start` in place of `init=auto`, and the values that suit them."""
        if self.fingerprint is None:
            return Plan(load_recipe(self.recipe, init=start.init))
        user_values = {key: value for key, value, reason in self.reasons if reason == SET_BY_USER}
        return plan_from_fingerprint(self.fingerprint, user_values, start)

    def to_markdown(self) -> str:
        """Return the plan as a Markdown page."""
        rows = [(format_code(key), format_value(value), reason) for key, value, reason in self.reasons]
        table = format_markdown_table(("key", "value", "reason"), rows)
        return f"# Plan\n\n{escape_markdown(self.recipe.about)}\n\n{table}\n"


def plan(data: Path | str, **changes: Any) -> Plan:
    """Plan a recipe for labeled images in a known layout; `changes` are kept as they are. Nothing is downloaded."""
    user_values = validate_changes(changes)
    fingerprint = compute_fingerprint(read_and_split(data, _build_data_recipe(user_values)))
    planned = plan_from_fingerprint(fingerprint, user_values)
    network = planned.recipe.network
    return planned.resolve_init(find_start([network])) if network.init == AUTO_INIT else planned


def plan_variants(data: Path | str, experiment: str = "", **changes: Any) -> dict[str, Plan]:
    """Return a plan for each combination of the values given as lists, by run name; `init=auto` is not yet resolved."""
    fingerprints: dict[str, Fingerprint] = {}
    plans: dict[str, Plan] = {}

    def plan_recipe(_: object, **values: Any) -> Recipe:
        user_values = validate_changes(values)
        data_recipe = _build_data_recipe(user_values)
        key = data_recipe.compute_hash()
        if key not in fingerprints:
            fingerprints[key] = compute_fingerprint(read_and_split(data, data_recipe))
        variant = plan_from_fingerprint(fingerprints[key], user_values)
        plans[variant.recipe.compute_hash()] = variant
        return variant.recipe

    recipes = expand_recipes(AUTO, experiment=experiment, load=plan_recipe, **changes)
    return {name: plans[recipe.compute_hash()] for name, recipe in recipes.items()}


def plan_from_fingerprint(fingerprint: Fingerprint, user_values: Mapping[str, Any], start: Start | None = None) -> Plan:
    """Choose a value for every key that a rule knows; keep the user's values.

    `start` stands in place of `init=auto`. Without it such a plan is preliminary, as if ImageNet weights were at hand.
    """
    fixed = {key: (value, SET_BY_USER) for key, value in user_values.items()}
    if user_values.get("init", AUTO_INIT) == AUTO_INIT:
        fixed["init"] = (start.init, start.reason) if start else (AUTO_INIT, "resolved when training starts")
    chosen = {key: value for key, (value, _) in fixed.items()}
    reasons: list[Choice] = [(key, value, reason) for key, (value, reason) in fixed.items()]
    for rule in RULES:
        for key, value, reason in rule(fingerprint, chosen):
            if key not in fixed:
                chosen[key] = value
                reasons.append((key, value, reason))
    about = f"Planned for {fingerprint.describe()}."
    recipe = load_recipe(None, **{"name": AUTO, "about": about, **chosen})
    return Plan(recipe, tuple(reasons), fingerprint)


def _build_data_recipe(user_values: dict[str, Any]) -> Recipe:
    """Return the recipe that labels are read and split with, before anything is measured."""
    return load_recipe(None, **{key: value for key, value in user_values.items() if key in _DATA_KEYS})
