"""Packaged recipes agree with their source documents: settings, reported accuracies and assumptions."""

from typing import Any

import pytest

from parfocal.recipe import expand_recipes, get_value, list_keys, load_recipe
from parfocal.recipe_file import read_recipe_file
from parfocal.reported import describe_packaged_recipe, find_deviations, find_reported_accuracies

# What the documents state, and nothing else.
FUNDUS = {"flip_horizontal": 0.5, "flip_vertical": 0.5, "stride_in": "3x3", "resize_mode": "crop", "ordered": True}
STATED: dict[str, dict[str, Any]] = {
    "leukemia-adam": {
        "rotate": 20, "flip_horizontal": 0.5, "flip_vertical": 0.5, "resize_mode": "squash", "size": 350,
        "crop_size": 224, "normalization": "none", "stride_in": "1x1", "init_scheme": "torch",
        "batch_size": 32, "learning_rate": 1e-3,
        "epochs": 80, "optimizer": "adam", "loss": "cross_entropy", "init": "scratch",
    },
    "leukemia-sgd": {
        "rotate": 20, "flip_horizontal": 0.5, "flip_vertical": 0.5, "size": 450, "crop_size": 450,
        "normalization": "imagenet", "stride_in": "second", "conv_bias": True, "init_scheme": "torch",
        "batch_size": 32, "learning_rate": 1e-4, "epochs": 25,
        "optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-3, "loss": "cross_entropy", "schedule": "constant",
        "init": "scratch",
    },
    "fundus": {**FUNDUS, "size": 512, "crop_size": 512, "init": "scratch", "init_scheme": "torch"},
    "fundus-head": {**FUNDUS, "size": 512, "crop_size": 512, "freeze": "head"},
    "fundus-head-224": {**FUNDUS, "size": 224, "crop_size": 224, "freeze": "head"},
    "fundus-finetune-224": {**FUNDUS, "size": 224, "crop_size": 224, "freeze": "none"},
    "fundus-cifar10": {**FUNDUS, "size": 512, "crop_size": 512, "model": "resnet18", "init": "runs/cifar10"},
    "cifar10": {"model": "resnet18", "epochs": 10, "format": "cifar10", "init": "scratch", "init_scheme": "torch"},
    "fundus-nonzero": {
        "grayscale": 0.2, "flip_horizontal": 0.5, "flip_vertical": 0.5, "normalization": "half", "stride_in": "3x3",
        "sampling": "oversample", "oversample": 0.5, "init": "scratch", "init_scheme": "torch",
    },
}  # fmt: skip

REPORTED = [
    ("leukemia-adam", {"model": "resnet18"}, "test", 93.058),
    ("leukemia-adam", {"model": "resnet50"}, "test", 93.558),
    ("leukemia-adam", {"model": "resnet152"}, "test", 91.807),
    ("leukemia-adam", {"optimizer": "sgd", "epochs": 60}, "train", 100),
    ("leukemia-sgd", {"model": "resnet18"}, "valid", 89.93),
    ("leukemia-sgd", {"model": "resnet50"}, "valid", 89.43),
    ("leukemia-sgd", {"model": "resnet152"}, "valid", 90.06),
    ("fundus", {"model": "resnet18"}, "test", 73.36),
    ("fundus", {"model": "resnet50"}, "test", 73.36),
    ("fundus", {"model": "resnet18", "init": "imagenet"}, "test", 84.00),
    ("fundus", {"model": "resnet50", "init": "imagenet"}, "test", 84.69),
    ("fundus-head", {"model": "resnet18"}, "test", 75.59),
    ("fundus-head", {"model": "resnet50"}, "test", 76.47),
    ("fundus-head-224", {"model": "resnet18"}, "test", 74.34),
    ("fundus-head-224", {"model": "resnet50"}, "test", 74.89),
    ("fundus-finetune-224", {}, "train", 80.12),
    ("fundus-finetune-224", {}, "test", 81.74),
    ("fundus-cifar10", {}, "train", 79.43),
    ("fundus-cifar10", {}, "test", 78.48),
    ("fundus-nonzero", {"model": "resnet18"}, "test", 73.16),
    ("fundus-nonzero", {"model": "resnet50"}, "test", 73.16),
    ("fundus-nonzero", {"model": "resnet18"}, "train", 73.25),
    ("fundus-nonzero", {"model": "resnet18", "init": "imagenet"}, "train", 81.79),
    ("fundus-nonzero", {"model": "resnet50", "init": "imagenet"}, "train", 79),
    ("fundus-nonzero", {"model": "resnet18", "init": "imagenet"}, "test", 80.15),
    ("fundus-nonzero", {"model": "resnet50", "init": "imagenet"}, "test", 78.26),
]


@pytest.mark.parametrize("name", STATED)
def test_a_recipe_has_the_settings_that_its_document_states(name: str) -> None:
    for key, value in STATED[name].items():
        assert get_value(load_recipe(name), key) == value, key
    assumptions = set(read_recipe_file(name).assumptions)
    # A value can be an assumption for one network or initialization and stated for another.
    assert not assumptions & set(STATED[name]) - {"model", "init"}


def test_the_batch_size_of_the_leukemia_report_with_sgd_depends_on_the_network() -> None:
    recipes = expand_recipes("leukemia-sgd", experiment="depth")
    assert [recipe.training.batch_size for recipe in recipes.values()] == [32, 16, 8]


@pytest.mark.parametrize("name", STATED)
def test_every_setting_that_a_document_does_not_state_is_an_assumption(name: str) -> None:
    sources = {key.rpartition(".")[2]: source for key, _, _, source, _ in describe_packaged_recipe(name)}
    # The document states a choice, and not the value of the key.
    implied = {"model", "test_curve", "resize_mode", "stem", "schedule"}
    unstated = set(sources) - set(STATED[name]) - implied
    assert all(sources[key].startswith("assumption: ") for key in unstated), unstated
    recipe = load_recipe(name)
    changed = {key for key in list_keys() if get_value(recipe, key) != get_value(load_recipe(), key)}
    assert changed - {"name", "about"} <= set(sources)


@pytest.mark.parametrize(("name", "changes", "split", "percent"), REPORTED)
def test_reported_accuracies_are_those_of_the_documents(
    name: str, changes: dict[str, str], split: str, percent: float
) -> None:
    assert find_reported_accuracies(load_recipe(name, **changes))[split].percent == percent


@pytest.mark.parametrize(
    "recipe",
    [load_recipe(), load_recipe("demo"), load_recipe("leukemia"), load_recipe("leukemia-adam", model="resnet34")],
)
def test_other_recipes_have_no_reported_accuracy(recipe: Any) -> None:
    assert find_reported_accuracies(recipe) == {}


def test_a_reported_accuracy_belongs_to_one_kind_of_sampling() -> None:
    recipes = expand_recipes("fundus-nonzero", experiment="sampling")
    assert find_reported_accuracies(recipes["resnet18-samplingnatural"]) == {}
    assert find_reported_accuracies(recipes["resnet18-samplingoversample"])["test"].percent == 80.15


def test_a_rounded_accuracy_is_shown_as_such() -> None:
    deep = find_reported_accuracies(load_recipe("fundus-nonzero", model="resnet50", init="imagenet"))
    assert {split: str(accuracy) for split, accuracy in deep.items()} == {"train": "about 0.79", "test": "0.783"}


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("fundus-head", "runs/cifar10"),
        ("fundus-head-224", "runs/cifar10"),
        ("fundus-finetune-224", "scratch"),
        ("fundus-cifar10", "imagenet"),
        ("fundus", "runs/cifar10"),
        ("leukemia-sgd", "runs/cifar10"),
    ],
)
def test_a_reported_accuracy_belongs_to_its_initial_weights(name: str, init: str) -> None:
    recipe = load_recipe(name, init=init)
    assert find_reported_accuracies(recipe) == {}
    assert find_deviations(recipe)["network.init"][1] == init


def test_an_experiment_of_a_document_is_no_deviation_from_it() -> None:
    trial = load_recipe("leukemia-adam", optimizer="sgd", epochs=60)
    assert find_deviations(trial) == {}
    # The accuracies of the document are those of batches of 32 images.
    assert find_deviations(load_recipe("leukemia-adam", batch_size=64)) == {"training.batch_size": (32, 64)}
    assert find_deviations(load_recipe("fundus-nonzero", init="imagenet", sampling="natural")) == {}
    assert find_deviations(load_recipe("leukemia-sgd", batch_size=128, lr_scaling="linear")) == {
        "training.batch_size": (32, 128),
        "training.lr_scaling": ("none", "linear"),
    }


def test_the_batch_size_experiments_have_a_constant_and_a_scaled_learning_rate() -> None:
    recipes = expand_recipes("leukemia-sgd", experiment="batch_size").values()
    settings = {(recipe.training.batch_size, recipe.training.lr_scaling) for recipe in recipes}
    assert settings == {(size, scaling) for size in (8, 32, 128) for scaling in ("none", "linear", "square_root")}
    with_adam = expand_recipes("leukemia-adam", experiment="batch_size").values()
    assert [recipe.training.batch_size for recipe in with_adam] == [32, 64]


def test_the_degradation_experiment_keeps_the_initialization_of_the_paper_and_draws_test_curves() -> None:
    for recipe in expand_recipes("cifar10", experiment="degradation").values():
        assert recipe.network.init_scheme == "kaiming"
        assert recipe.training.test_curve


def test_deviations_are_the_settings_that_differ_from_the_document() -> None:
    assert find_deviations(load_recipe("leukemia-sgd", model="resnet50", seed=3)) == {}
    assert find_deviations(load_recipe("fundus", init="imagenet")) == {}
    changed = find_deviations(load_recipe("leukemia-sgd", model="resnet50", epochs=2, batch_size=4))
    assert changed == {"training.epochs": (25, 2), "training.batch_size": (16, 4)}
    assert find_deviations(load_recipe(None, epochs=2)) == {}


def test_a_packaged_recipe_is_described_with_values_by_network_and_their_source() -> None:
    rows = {row[0]: row for row in describe_packaged_recipe("leukemia-sgd")}
    assert rows["training.batch_size"][1:4] == ("32; resnet50: 16; resnet152: 8", "32", "source document")
    assert rows["training.select"][3].startswith("assumption: ")
    assert rows["training.learning_rate"][1] == "0.0001"
    assert {row[3] for row in describe_packaged_recipe("leukemia")} == {"Parfocal"}
