"""The recipe `auto`: measure the data and the device, let the rules choose, and keep a reason beside each value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parfocal.data.split import read_with_splits
from parfocal.documented import words
from parfocal.parts import ColumnsPart, DataPart, SplitPart
from parfocal.recipe import Recipe, recipe, settled, variants
from parfocal.recipe_file import AUTO
from parfocal.training.facts import Facts, measured
from parfocal.training.rules import RULES, Choice

YOURS = "you said so"
"""The reason for a value that no rule chose."""

_READING = {"seed", *DataPart.model_fields, *ColumnsPart.model_fields, *SplitPart.model_fields}


@dataclass(frozen=True)
class Plan:
    """A recipe and, where it was planned, the key, the value and the reason of each choice."""

    recipe: Recipe
    reasons: tuple[Choice, ...] = ()

    @property
    def said(self) -> set[str]:
        """The keys that no rule chose."""
        return {key for key, _, reason in self.reasons if reason == YOURS}

    def markdown(self) -> str:
        """Return the plan as a page of text, to be kept with a run."""
        rows = "".join(f"| `{key}` | {words(value)} | {reason} |\n" for key, value, reason in self.reasons)
        return f"# Plan\n\n{self.recipe.about}\n\n| key | value | why |\n|---|---|---|\n{rows}"


def plan(data: Path | str, **changes: Any) -> Plan:
    """Plan a recipe for labelled images in any of the known layouts; `changes` are taken as they are."""
    said = settled(changes)
    return planned(_facts(data, _reading(said)), said)


def plans(data: Path | str, experiment: str = "", **changes: Any) -> dict[str, Plan]:
    """Return one plan for each combination of values given as lists, by run name."""
    known: dict[str, Facts] = {}
    made: dict[str, Plan] = {}

    def make(_: object, **values: Any) -> Recipe:
        said = settled(values)
        reading = _reading(said)
        if reading.digest() not in known:
            known[reading.digest()] = _facts(data, reading)
        one = planned(known[reading.digest()], said)
        made[one.recipe.digest()] = one
        return one.recipe

    recipes = variants(AUTO, experiment=experiment, make=make, **changes)
    return {name: made[one.digest()] for name, one in recipes.items()}


def planned(facts: Facts, said: dict[str, Any]) -> Plan:
    """Choose a value for every key that a rule knows of; what is said is taken as it is."""
    taken = dict(said)
    reasons: list[Choice] = [(key, value, YOURS) for key, value in said.items()]
    for rule in RULES:
        for key, value, why in rule(facts, taken):
            if key not in said:
                taken[key] = value
                reasons.append((key, value, why))
    about = f"Planned for {facts.line()}."
    return Plan(recipe(None, **{"name": AUTO, "about": about, **taken}), tuple(reasons))


def _reading(said: dict[str, Any]) -> Recipe:
    """Return how labels are read and split, which is settled before anything can be measured."""
    return recipe(None, **{key: value for key, value in said.items() if key in _READING})


def _facts(data: Path | str, reading: Recipe) -> Facts:
    return measured(read_with_splits(data, reading))
