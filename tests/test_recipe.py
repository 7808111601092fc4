"""Recipes: which keys and values are valid, and what the message for an invalid one says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sklearn.model_selection import StratifiedGroupKFold

from parfocal import recipe
from parfocal.errors import UsageError
from parfocal.key_aliases import ALIASES, EXPLANATIONS, VALUE_ALIASES
from parfocal.recipe import (
    Recipe,
    canonicalize_changes,
    describe_keys,
    expand_recipes,
    find_differences,
    list_keys,
    load_recipe,
    parse_changes,
    validate_changes,
)
from parfocal.recipe_file import find_packaged_recipes
from parfocal.recipe_schema import Config


def test_every_key_has_a_unique_short_name() -> None:
    keys = [
        key
        for field in Recipe.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config)
        for key in field.annotation.model_fields
    ]
    top_keys = [name for name, field in Recipe.model_fields.items() if not isinstance(field.default, BaseModel)]
    assert len(set(keys + top_keys)) == len(keys + top_keys)
    assert set(list_keys()) == set(keys + top_keys)


def test_short_and_full_keys_mean_the_same() -> None:
    assert load_recipe(None, epochs=3) == load_recipe(None, **{"training.epochs": 3})


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("epohcs=3", "no key 'epohcs'. Did you mean 'epochs'?"),
        ("training.epoch=3", "no key 'training.epoch'. Did you mean 'training.epochs'?"),
        ("optimizer=sdg", "optimizer=sdg is not a choice. Did you mean 'sgd'?"),
        ("epochs=0", "training.epochs=0"),
        ("epochs=many", "training.epochs=many"),
        ("epochs", "not of the form key=value"),
        ("crop_size=400", "crop_size=400 is larger than size=256"),
        ("warmup=30", "warmup=30 is longer than epochs=20"),
        ("epochs=[1", "cannot be read"),
        ("epochs=0b_", "cannot be read"),
        ("seed=100000000000000000000", "seed=100000000000000000000: Input should be less than 4294967296"),
        ("minutes=1:30", "training.minutes=1:30: Input should be a valid number"),
        ("minutes=1:30.5", "training.minutes=1:30.5: Input should be a valid number"),
        ("sampling=factors", "sampling=factors needs one number for each class, such as factors=1,7"),
        ("factors=0,0", "factors=0,0 would show no image"),
        ("factors=-1,2", "training.factors.0=-1: Input should be greater than or equal to 0"),
        ("factors=1,.inf", "training.factors.1=inf: Input should be a finite number"),
    ],
)
def test_an_invalid_change_is_named_with_a_hint(argument: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe(None, **parse_changes([argument]))
    assert message in str(error.value)


@pytest.fixture
def new_process() -> None:
    """Print the line about an alias again, as a new process does."""
    recipe._print_alias.cache_clear()


@pytest.mark.parametrize(
    ("argument", "key", "value", "line"),
    [
        ("lr=0.1", "learning_rate", 0.1, "Reading lr=0.1 as learning_rate=0.1."),
        ("training.lr=0.1", "learning_rate", 0.1, "Reading training.lr=0.1 as learning_rate=0.1."),
        ("imgsz=128", "crop_size", 128, "Reading imgsz=128 as crop_size=128."),
        ("optim=adam", "optimizer", "adam", "Reading optim=adam as optimizer=adam."),
        ("bs=8", "batch_size", 8, "Reading bs=8 as batch_size=8."),
        ("max_epochs=5", "epochs", 5, "Reading max_epochs=5 as epochs=5."),
        ("learning-rate=0.1", "learning_rate", 0.1, "Reading learning-rate=0.1 as learning_rate=0.1."),
        ("amp=true", "precision", "auto", "Reading amp=true as precision=auto."),
        ("amp=false", "precision", "float32", "Reading amp=false as precision=float32."),
        ("report_to=tensorboard", "loggers", ("tensorboard",), "Reading report_to=tensorboard as loggers=tensorboard."),
    ],
)
def test_names_of_other_tools_are_accepted_with_one_printed_line(
    new_process: None, capsys: pytest.CaptureFixture[str], argument: str, key: str, value: object, line: str
) -> None:
    for _ in range(2):
        assert recipe.get_value(load_recipe(None, **parse_changes([argument])), key) == value
    # Not only in a terminal: whoever reads the log of a job must see what was read.
    assert capsys.readouterr().err.splitlines() == [line]


def test_an_alias_with_several_values_starts_several_runs() -> None:
    assert list(expand_recipes(None, **parse_changes(["lr=0.1,0.2"]))) == [
        "resnet18-learning_rate0.1",
        "resnet18-learning_rate0.2",
    ]


def test_a_key_and_its_alias_cannot_both_be_given() -> None:
    with pytest.raises(UsageError, match="lr and learning_rate are the same key"):
        canonicalize_changes({"lr": 0.1, "learning_rate": 0.2})


def test_every_alias_names_a_key_and_no_alias_or_explanation_is_itself_a_key() -> None:
    keys = list_keys()
    assert set(ALIASES.values()) | {key for key, _ in VALUE_ALIASES.values()} <= set(keys)
    assert not (set(ALIASES) | set(VALUE_ALIASES) | set(EXPLANATIONS)) & set(keys)
    assert not set(ALIASES) & set(EXPLANATIONS)
    for key, values in VALUE_ALIASES.values():
        for value in values.values():
            load_recipe(None, **{key: value})


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("pretrained=true", "no key 'pretrained'. Set init=imagenet"),
        ("augment=true", "no key 'augment'. Choose augmentations one by one: rotate, flip_horizontal"),
        ("amp=fp16", "amp=fp16 is not true or false. Set precision to one of auto, bf16, float32."),
        ("gradient_norm=1", "no key 'gradient_norm'. Related keys: training.clip_grad."),
        ("rotation_range=20", "no key 'rotation_range'. Related keys: views.rotate, views.hue."),
        ("trivialaugment=1", "no key 'trivialaugment'. `parfocal recipes --keys` lists all keys."),
    ],
)
def test_an_unknown_key_is_explained_or_leads_to_keys_of_that_meaning(argument: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe(None, **parse_changes([argument]))
    assert message in str(error.value)


def test_defaults_are_described_as_they_are_written() -> None:
    defaults = {key: default for key, default, _ in describe_keys()}
    assert defaults["images.stain_mean"] == "18,27.6,-22.4"
    assert (defaults["split.keep"], defaults["training.learning_rate"]) == ("true", "0.05")
    assert (defaults["views.probabilities"], defaults["network.groups"], defaults["data.allow"]) == ("", "", "")


def test_a_value_that_looks_like_a_date_is_text() -> None:
    for name in ("2020-13-45", "2020-10-10"):
        assert load_recipe(None, **parse_changes([f"name={name}"])).name == name


def test_the_largest_seed_makes_folds() -> None:
    assert load_recipe(None, seed=2**32 - 1).seed == 2**32 - 1
    splitter = StratifiedGroupKFold(2, shuffle=True, random_state=2**32 - 1)
    assert list(splitter.split(np.zeros(8), [0, 1] * 4, range(8)))


def test_the_message_for_an_unknown_recipe_names_the_most_similar() -> None:
    with pytest.raises(UsageError, match="Did you mean 'leukemia'"):
        load_recipe("leukaemia")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epoch: 3}", "Did you mean 'training.epochs'"),
        ("trainig: {epochs: 3}", "Did you mean 'training'"),
        ("training: {lr: 3}", "no key 'training.lr'. Write 'training.learning_rate'."),
        ("epochs: 3", "It belongs in the section 'training'"),
        ("a: [", "not valid YAML"),
        ("just words", "is not a recipe"),
        ("training: {minutes: 1:30}", "training.minutes=1:30: Input should be a valid number"),
        ("training: {epochs: 0b_}", "not valid YAML"),
    ],
)
def test_an_invalid_file_is_rejected_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_recipe(tmp_path / "mine.yaml")
    assert message in str(error.value)


@pytest.mark.parametrize("name", find_packaged_recipes())
def test_packaged_recipes_are_valid_and_state_their_purpose(name: str) -> None:
    loaded = load_recipe(name)
    assert loaded.name == name
    assert loaded.about


def test_a_saved_recipe_is_loaded_unchanged(tmp_path: Path) -> None:
    saved = load_recipe("leukemia", epochs=3, allow=["patient_overlap"])
    saved.save(tmp_path / "recipe.yaml")
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert loaded == saved
    assert loaded.compute_hash() == saved.compute_hash()
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["training"]["batch_size"] == 32


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(1, 500),
            "learning_rate": st.floats(1e-6, 1),
            "rotate": st.floats(0, 180),
            "model": st.sampled_from(["resnet18", "resnet152"]),
            "grayscale": st.floats(0, 1),
        },
    )
)
def test_differences_are_the_changed_keys_and_change_the_hash(changes: dict[str, Any]) -> None:
    default, changed = load_recipe(), load_recipe(None, **changes)
    differences = {key.rpartition(".")[2]: new for key, (_, new) in find_differences(default, changed).items()}
    assert differences == {
        key: value for key, value in changes.items() if load_recipe().model_dump()[list_keys()[key][0]][key] != value
    }
    assert (default.compute_hash() == changed.compute_hash()) == (not differences)


def test_lists_of_values_give_one_recipe_per_combination() -> None:
    recipes = expand_recipes(None, **parse_changes(["model=resnet18,resnet50", "seed=0,1", "epochs=2"]))
    assert list(recipes) == ["resnet18-seed0", "resnet18-seed1", "resnet50-seed0", "resnet50-seed1"]
    assert {expanded.training.epochs for expanded in recipes.values()} == {2}


def test_a_single_run_has_the_name_of_its_network() -> None:
    assert list(expand_recipes("demo")) == ["resnet18"]


def test_a_value_that_is_listed_twice_is_rejected() -> None:
    with pytest.raises(UsageError, match="resnet18 is listed twice"):
        expand_recipes(None, model=["resnet18", "resnet18"])


def test_several_accepted_findings_are_one_value_and_not_several_runs() -> None:
    recipes = expand_recipes(None, **parse_changes(["allow=patient_overlap,missing_files"]))
    assert recipes["resnet18"].data.allow == ("patient_overlap", "missing_files")


def test_changes_are_validated_one_by_one() -> None:
    assert validate_changes({"training.epochs": "3", "crop_size": 400, "warmup": 30}) == {
        "epochs": 3,
        "crop_size": 400,
        "warmup": 30,
    }
    with pytest.raises(UsageError, match=r"training\.epochs=0: Input should be greater"):
        validate_changes({"epochs": 0})
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        validate_changes({"epohcs": 3})
