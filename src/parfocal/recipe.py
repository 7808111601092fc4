"""Recipes: load, change, validate, compare, save and hash all settings of a run.

A recipe is a YAML file with the sections of `recipe_schema.py`. A key is written alone (`epochs=3`) or in full
(`training.epochs=3`), because no key occurs in two sections.
"""

import copy
import functools
import hashlib
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import Field, PrivateAttr, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from parfocal.errors import UsageError, did_you_mean, find_similar
from parfocal.key_aliases import ALIASES, EXPLANATIONS, VALUE_ALIASES
from parfocal.manifest import write_listed_file
from parfocal.progress import print_note
from parfocal.recipe_file import AUTO, RecipeFile, read_recipe_file, read_yaml
from parfocal.recipe_schema import (
    AUTO_INIT,
    MAX_ZCA_SIZE,
    ColumnsConfig,
    Config,
    DataConfig,
    DecisionRuleName,
    EvaluationConfig,
    ImagesConfig,
    MachineConfig,
    NetworkConfig,
    SplitConfig,
    TrainingConfig,
    ViewsConfig,
)

_RECIPE_KEY = "recipe"
"""The key whose list of recipes an experiment compares."""

_MAX_RELATED_KEYS = 4

_START_KEYS = ("init", "model")
"""The keys that decide whether a network starts from scratch."""

_LITERAL_KEYS = ("group_from",)
"""Keys whose value on the command line is taken as it is, because braces and commas are part of a pattern."""


class Recipe(Config):
    """All settings of a run; create it with `load_recipe` or `expand_recipes`."""

    name: str = Field(default="custom", description="name of the recipe")
    about: str = Field(default="", description="purpose of the recipe, in one sentence")
    # scikit-learn, which makes the folds, accepts no larger seed.
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="random seed of splits, initial weights, sampling and augmentation"
    )
    data: DataConfig = DataConfig()
    columns: ColumnsConfig = ColumnsConfig()
    split: SplitConfig = SplitConfig()
    images: ImagesConfig = ImagesConfig()
    views: ViewsConfig = ViewsConfig()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    machine: MachineConfig = MachineConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    # The values by start of a recipe file, until it is known which of them apply.
    _by_start: Mapping[str, Mapping[str, Any]] = PrivateAttr(default={})

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.training.freeze != "none" and self.network.init == "scratch":
            raise ValueError(
                f"freeze={self.training.freeze} would freeze random weights. Set init=imagenet or other weights"
            )
        if self.training.head != "random" and self.network.init == "scratch":
            raise ValueError(
                f"head={self.training.head} needs pretrained weights: the features of a random network hardly tell "
                "classes apart. Set init=imagenet or other weights"
            )
        if self.views.crop_size > self.images.size:
            raise ValueError(
                f"crop_size={self.views.crop_size} is larger than size={self.images.size}. Set a larger size as well"
            )
        if self.views.start_size > self.views.crop_size:
            raise ValueError(f"start_size={self.views.start_size} is larger than crop_size={self.views.crop_size}")
        if self.network.normalization == "zca":
            # The matrix mixes all pixels of a crop, so all crops have the same size.
            if self.views.crop_size > MAX_ZCA_SIZE:
                raise ValueError(
                    f"normalization=zca whitens crops of at most {MAX_ZCA_SIZE} pixels, not "
                    f"crop_size={self.views.crop_size}. Set normalization=whiten, which whitens the colors"
                )
            if self.views.start_size:
                raise ValueError("normalization=zca needs crops of one size. Set start_size=0")
        return self

    @property
    def decision_rule(self) -> DecisionRuleName:
        """The rule that the predicted class follows: `decide`, or what `auto` stands for."""
        if self.evaluation.decide != "auto":
            return self.evaluation.decide
        # A regression head has thresholds of its own, tuned for kappa: its likeliest class is what they say.
        selects_kappa = self.training.select == "quadratic_kappa" and self.training.loss != "regression"
        return "mean" if self.evaluation.ordered and selects_kappa else "likeliest"

    def compute_hash(self) -> str:
        """Return a short hash of all settings."""
        return hash_content(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        """Write all settings as YAML."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        with write_listed_file(path) as temporary_path:
            temporary_path.write_text(text, encoding="utf-8")


def hash_content(content: object) -> str:
    """Return a short, stable hash of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_recipe(source: str | Path | RecipeFile | Recipe | None = None, **changes: Any) -> Recipe:
    """Return the recipe `source` (a packaged name, a YAML file, its content or a recipe) with changed keys: `epochs=3`.

    The values that a file gives for single networks, and those by start, apply to the chosen network and its initial
    weights; with `init=auto` the latter wait until `load_recipe(recipe, init=…)` resolves it.
    """
    content: dict[str, Any] = {}
    by_start: Mapping[str, Mapping[str, Any]] = {}
    changes = canonicalize_changes(changes)
    if isinstance(source, Recipe):
        content = source.model_dump(mode="json")
        by_start = source._by_start
    elif source is not None:
        file = source if isinstance(source, RecipeFile) else read_recipe_file(source)
        content = copy.deepcopy(file.choices)
        by_start = {start: _validate_values_by_start(start, values) for start, values in file.by_start.items()}
        model = _get_network_choice(content, changes, "model")
        changes = {**canonicalize_changes(file.networks.get(str(model), {})), **changes}
    by_start = {
        start: {key: value for key, value in values.items() if key not in changes} for start, values in by_start.items()
    }
    init = _get_network_choice(content, changes, "init")
    if init != AUTO_INIT:
        changes = {**by_start.get("scratch" if init == "scratch" else "pretrained", {}), **changes}
        by_start = {}
    for key, value in changes.items():
        *sections, name = _resolve_key(key)
        target = content
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(_format_validation_error(error)) from None
    recipe._by_start = by_start
    return recipe


def _get_network_choice(content: Mapping[str, Any], changes: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key of the section `network`, changed, in the file, or by default."""
    section = content.get("network")
    in_file = section.get(key) if isinstance(section, dict) else None
    return changes.get(key, in_file or getattr(NetworkConfig(), key))


def _validate_values_by_start(start: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a start under the short names of their keys; reject an invalid one, whatever applies."""
    valid_values = validate_changes(values)
    for key in _START_KEYS:
        if key in valid_values:
            raise UsageError(f"by_start: {start} sets {key}, which decides the start. Set it in the section network.")
    return valid_values


def expand_recipes(
    source: str | Path | Recipe | None = None,
    *,
    experiment: str = "",
    load: Callable[..., Recipe] = load_recipe,
    **changes: Any,
) -> dict[str, Recipe]:
    """Return a recipe per combination of the values that are given as lists, by run name.

    `model=["resnet18", "resnet50"], seed=[0, 1]` gives `resnet18-seed0`, `resnet18-seed1`, …. An `experiment` of the
    recipe file adds its lists of values; `changes` override them. `load` makes each recipe from a source and changes.
    """
    values = {**_read_experiment(source, experiment), **canonicalize_changes(changes)}
    lists = {
        key: value
        for key, value in values.items()
        if isinstance(value, list) and (key == _RECIPE_KEY or not _takes_list(key))
    }
    recipes: dict[str, Recipe] = {}
    for combination in itertools.product(*lists.values()):
        choice = dict(zip(lists, combination, strict=True))
        recipe_changes = {**values, **choice}
        recipe = load(recipe_changes.pop(_RECIPE_KEY, source), **recipe_changes)
        name = recipe.network.model
        for key, value in choice.items():
            if key != "model":
                text = re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")
                name += f"-{text}" if key == _RECIPE_KEY else f"-{key}{text}"
        if name in recipes:
            raise UsageError(f"{name} is listed twice. List each value once.")
        recipes[name] = recipe
    return recipes


def _read_experiment(source: str | Path | Recipe | None, name: str) -> dict[str, Any]:
    """Return the values, and lists of values, of an experiment in a recipe file."""
    if not name:
        return {}
    if source is None or isinstance(source, Recipe):
        raise UsageError(
            f"experiment={name} needs a recipe that defines it. `parfocal recipes` lists recipes and experiments."
        )
    experiments = {} if source == AUTO else read_recipe_file(source).experiments
    if name not in experiments:
        hint = "It has no experiments. `parfocal recipes` lists recipes that have some."
        if experiments:
            hint = did_you_mean(name, experiments)
        raise UsageError(f"The recipe {source} has no experiment {name!r}. {hint}")
    values = dict(experiments[name])
    compared = {_RECIPE_KEY: values.pop(_RECIPE_KEY)} if _RECIPE_KEY in values else {}
    return {**compared, **canonicalize_changes(values)}


def canonicalize_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes under the short names of their keys; print a line for each alias of another tool."""
    canonical: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in changes.items():
        key = _resolve_key(name)[-1]
        if key in names:
            raise UsageError(f"{names[key]} and {name} are the same key. Give it once.")
        names[key] = name
        leaf = name.rpartition(".")[2]
        canonical[key] = _translate_value(leaf, value) if leaf in VALUE_ALIASES else value
        if leaf != key:
            _print_alias(f"Reading {name}={format_value(value)} as {key}={format_value(canonical[key])}.")
    return canonical


def _translate_value(alias: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_translate_value(alias, item) for item in value]
    key, translations = VALUE_ALIASES[alias]
    if not isinstance(value, bool):
        choices = ", ".join(list_choices(_resolve_key(key)))
        raise UsageError(f"{alias}={value} is not true or false. Set {key} to one of {choices}.")
    return translations[value]


# A recipe is read more than once, for example to validate it before the imports that take seconds.
@functools.cache
def _print_alias(text: str) -> None:
    print_note(text)


def validate_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes under the short names of their keys, each value validated and converted by itself."""
    values: dict[str, Any] = {}
    for name, value in canonicalize_changes(changes).items():
        key = _resolve_key(name)
        field = _find_field(key)
        try:
            annotation = Annotated[field.annotation, field]  # pyright: ignore[reportInvalidTypeForm]
            values[name] = TypeAdapter[Any](annotation).validate_python(value)  # pyright: ignore[reportArgumentType]
        except ValidationError as error:
            raise UsageError(_format_validation_error(error, ".".join(key))) from None
    return values


def parse_changes(arguments: Iterable[str]) -> dict[str, Any]:
    """Parse `key=value` arguments; commas make a list, and any other value is read as YAML."""
    changes: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise UsageError(f"{argument!r} is not of the form key=value, such as epochs=20.")
        if name == "experiment":
            changes[name] = text
            continue
        if _resolve_key(name)[-1] in _LITERAL_KEYS:
            changes[name] = text
            continue
        try:
            value = read_yaml(f"[{text}]" if "," in text and text[0] not in "[{" else text)
        except (yaml.YAMLError, ValueError):
            raise UsageError(f"The value in {argument!r} cannot be read.") from None
        changes[name] = [value] if _takes_list(name) and not isinstance(value, list) else value
    return changes


def find_differences(base: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the full keys in which two recipes differ, with both values."""
    first = base.model_dump(mode="json")
    second = other.model_dump(mode="json")
    values = {".".join(key): (get_nested(first, key), get_nested(second, key)) for key in list_keys().values()}
    return {key: pair for key, pair in values.items() if pair[0] != pair[1]}


def get_nested(content: Mapping[str, Any], key: Iterable[str]) -> Any:
    """Return the value of a key, section by section, in a recipe as plain data."""
    return functools.reduce(operator.getitem, key, content)


def get_value(recipe: Recipe, name: str) -> Any:
    """Return a recipe's value of a key, which is written alone or in full."""
    return functools.reduce(getattr, _resolve_key(name), recipe)


def format_value(value: Any) -> str:
    """Format a value as it is written on the command line."""
    if isinstance(value, tuple | list):
        return ",".join(format_value(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else yaml.safe_dump(value).splitlines()[0].strip("'")


def list_keys() -> dict[str, tuple[str, ...]]:
    """Return every recipe key by its short name, as section and name."""
    keys: dict[str, tuple[str, ...]] = {}
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            keys.update({key: (name, key) for key in field.annotation.model_fields})
        else:
            keys[name] = (name,)
    return keys


def describe_keys() -> list[tuple[str, str, str]]:
    """Return every recipe key in full, with its default and its description, which includes the valid choices."""
    rows: list[tuple[str, str, str]] = []
    for key in list_keys().values():
        field = _find_field(key)
        choices = list_choices(key)
        description = f"{field.description} ({', '.join(choices)})" if choices else str(field.description)
        rows.append((".".join(key), format_value(field.default) if field.default != {} else "", description))
    return rows


def list_choices(key: tuple[str, ...]) -> list[str]:
    """Return the valid words of a key, such as `sgd`, `adam` and `adamw`; empty if it takes other values."""
    return [choice for choice in _find_literals(_find_field(key).annotation) if isinstance(choice, str)]


def _find_literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for inner in get_args(annotation) for choice in _find_literals(inner)]


def _takes_list(name: str) -> bool:
    """Return whether the value of a key is itself a list, so that commas in it do not start more runs."""
    return get_origin(_find_field(_resolve_key(name)).annotation) is tuple


def _find_field(key: tuple[str, ...]) -> FieldInfo:
    section = Recipe if len(key) == 1 else type(Recipe.model_fields[key[0]].default)
    return section.model_fields[key[-1]]


def _resolve_key(name: str) -> tuple[str, ...]:
    """Return the section and name of a key that is written alone, in full or as an alias."""
    keys = list_keys()
    section, _, leaf = name.rpartition(".")
    alias = VALUE_ALIASES[leaf][0] if leaf in VALUE_ALIASES else ALIASES.get(leaf.lower().replace("-", "_"))
    for candidate in (leaf, leaf.replace("-", "_"), alias):
        if candidate in keys and section in ("", ".".join(keys[candidate][:-1])):
            return keys[candidate]
    if name == "experiment":
        raise UsageError("experiment=… starts several runs, and only `parfocal train` accepts it.")
    candidates = [".".join(key) for key in keys.values()] if section else list(keys)
    raise UsageError(f"A recipe has no key {name!r}. {_explain_unknown_key(name, candidates)}")


def _explain_unknown_key(name: str, candidates: Iterable[str]) -> str:
    """Say what to write instead: the explanation of a well-known name, a similar key, or keys with that meaning."""
    leaf = name.rpartition(".")[2]
    if leaf in EXPLANATIONS:
        return EXPLANATIONS[leaf]
    if similar := find_similar(name, candidates):
        return f"Did you mean {similar!r}?"
    words = _split_words(leaf)
    scores = {key: len(words & _split_words(f"{key} {description}")) for key, _, description in describe_keys()}
    related = [key for key, score in scores.items() if score and score == max(scores.values())]
    if related:
        return f"Related keys: {', '.join(related[:_MAX_RELATED_KEYS])}."
    return "`parfocal recipes --keys` lists all keys."


def _split_words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"[a-z]{3,}", text.lower())}


def _format_validation_error(error: ValidationError, key: str = "") -> str:
    lines: list[str] = []
    for fault in error.errors():
        name = key or ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"A recipe has no key {name!r}. {_explain_file_key(name)}")
        elif fault["type"] == "literal_error":
            expected = fault.get("ctx", {})["expected"]
            choices = [choice.strip("'") for choice in expected.replace(" or ", ", ").split(", ")]
            similar = find_similar(str(fault["input"]), choices)
            hint = f" Did you mean {similar!r}?" if similar else ""
            lines.append(f"{name}={fault['input']} is not a choice.{hint} Valid are: {', '.join(choices)}.")
        elif fault["type"] == "value_error" or not name:
            lines.append(f"{fault['msg'].removeprefix('Value error, ')}.")
        else:
            lines.append(f"{name}={fault['input']}: {fault['msg']}.")
    return "\n".join(dict.fromkeys(lines))


def _explain_file_key(name: str) -> str:
    """Say where a key of a recipe file belongs, or what to write instead."""
    keys = list_keys()
    leaf = name.rpartition(".")[2]
    if name in keys:
        return f"It belongs in the section {keys[name][0]!r}."
    if leaf in ALIASES:
        return f"Write {'.'.join(keys[ALIASES[leaf]])!r}."
    return _explain_unknown_key(name, [".".join(key) for key in keys.values()] if "." in name else Recipe.model_fields)
