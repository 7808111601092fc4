"""Recipes: what they accept, what they refuse and with which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sklearn.model_selection import StratifiedGroupKFold

from parfocal.errors import UsageError
from parfocal.recipe import (
    Recipe,
    expand_recipes,
    find_differences,
    list_keys,
    load_recipe,
    parse_changes,
    validate_changes,
)
from parfocal.recipe_file import find_packaged_recipes
from parfocal.schema import Config


def test_every_key_has_a_short_name_of_its_own() -> None:
    leaves = [
        leaf
        for field in Recipe.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config)
        for leaf in field.annotation.model_fields
    ]
    tops = [name for name, value in Recipe.model_fields.items() if not isinstance(value.default, BaseModel)]
    assert len(set(leaves + tops)) == len(leaves + tops)
    assert set(list_keys()) == set(leaves + tops)


def test_short_and_full_keys_mean_the_same() -> None:
    assert load_recipe(None, epochs=3) == load_recipe(None, **{"training.epochs": 3})


@pytest.mark.parametrize(
    ("word", "said"),
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
def test_a_mistake_is_named_with_what_was_meant(word: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe(None, **parse_changes([word]))
    assert said in str(error.value)


def test_what_looks_like_a_date_is_a_name() -> None:
    for name in ("2020-13-45", "2020-10-10"):
        assert load_recipe(None, **parse_changes([f"name={name}"])).name == name


def test_the_largest_seed_makes_folds() -> None:
    assert load_recipe(None, seed=2**32 - 1).seed == 2**32 - 1
    chooser = StratifiedGroupKFold(2, shuffle=True, random_state=2**32 - 1)
    assert list(chooser.split(np.zeros(8), [0, 1] * 4, range(8)))


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'leukemia'"):
        load_recipe("leukaemia")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {epoch: 3}", "Did you mean 'training.epochs'"),
        ("trainig: {epochs: 3}", "Did you mean 'training'"),
        ("epochs: 3", "It belongs to the part 'training'"),
        ("a: [", "not readable YAML"),
        ("just words", "holds no recipe"),
        ("training: {minutes: 1:30}", "training.minutes=1:30: Input should be a valid number"),
        ("training: {epochs: 0b_}", "not readable YAML"),
    ],
)
def test_a_faulty_file_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_recipe(tmp_path / "mine.yaml")
    assert said in str(error.value)


@pytest.mark.parametrize("name", find_packaged_recipes())
def test_packaged_recipes_are_valid_and_say_what_they_are_for(name: str) -> None:
    found = load_recipe(name)
    assert found.name == name
    assert found.about


def test_a_saved_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    before = load_recipe("leukemia", epochs=3, allow=["patient_overlap"])
    before.save(tmp_path / "recipe.yaml")
    after = load_recipe(tmp_path / "recipe.yaml")
    assert after == before
    assert after.compute_hash() == before.compute_hash()
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
def test_differences_are_what_was_changed_and_the_digest_tells(changes: dict[str, Any]) -> None:
    plain, changed = load_recipe(), load_recipe(None, **changes)
    found = {key.rpartition(".")[2]: new for key, (_, new) in find_differences(plain, changed).items()}
    assert found == {
        key: value for key, value in changes.items() if load_recipe().model_dump()[list_keys()[key][0]][key] != value
    }
    assert (plain.compute_hash() == changed.compute_hash()) == (not found)


def test_lists_of_values_make_one_run_each() -> None:
    found = expand_recipes(None, **parse_changes(["model=resnet18,resnet50", "seed=0,1", "epochs=2"]))
    assert list(found) == ["resnet18-seed0", "resnet18-seed1", "resnet50-seed0", "resnet50-seed1"]
    assert {one.training.epochs for one in found.values()} == {2}


def test_one_value_gives_a_run_called_after_its_network() -> None:
    assert list(expand_recipes("demo")) == ["resnet18"]


def test_the_same_value_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="resnet18 is asked for twice"):
        expand_recipes(None, model=["resnet18", "resnet18"])


def test_waivers_are_a_list_and_not_variants() -> None:
    found = expand_recipes(None, **parse_changes(["allow=patient_overlap,missing_files"]))
    assert found["resnet18"].data.allow == ("patient_overlap", "missing_files")


def test_values_are_settled_each_for_itself() -> None:
    assert validate_changes({"training.epochs": "3", "crop_size": 400, "warmup": 30}) == {
        "epochs": 3,
        "crop_size": 400,
        "warmup": 30,
    }
    with pytest.raises(UsageError, match=r"training\.epochs=0: Input should be greater"):
        validate_changes({"epochs": 0})
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        validate_changes({"epohcs": 3})
