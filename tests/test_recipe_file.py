"""A recipe's file: what stands beside the choices, values by network, and experiments of several runs."""

from pathlib import Path

import pytest

from parfocal.errors import UsageError
from parfocal.recipe import expand_recipes, list_keys, load_recipe, parse_changes
from parfocal.recipe_file import find_packaged_recipes, read_recipe_file

DOCUMENTED = [name for name in find_packaged_recipes() if read_recipe_file(name).document]

FILE = """
document: a paper
training: {batch: 32, epochs: 3}
networks: {resnet50: {batch: 16}, resnet152: {training.batch_size: 8, learning_rate: 0.01}}
experiments:
  depth: {model: [resnet18, resnet50, resnet152]}
  starts: {model: [resnet18, resnet50], init: [scratch, imagenet], epochs: 2}
  against: {recipe: [demo, leukemia-sgd], seed: [0, 1]}
reported: [{split: test, percent: 91.5, when: {model: resnet18}}]
chosen: {epochs: nobody says}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(FILE)
    return tmp_path / "mine.yaml"


def test_what_stands_beside_the_choices_is_no_part_of_the_recipe(file: Path, tmp_path: Path) -> None:
    one = load_recipe(file)
    plain = load_recipe(None, name="mine", batch_size=32, epochs=3)
    assert one == plain
    assert one.compute_hash() == plain.compute_hash()
    one.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == one
    assert not {"reported", "experiments", "networks", "chosen"} & set(one.model_dump())


@pytest.mark.parametrize(("model", "batch"), [("resnet18", 32), ("resnet50", 16), ("resnet152", 8), ("resnet34", 32)])
def test_values_by_network_are_those_of_the_chosen_network(file: Path, model: str, batch: int) -> None:
    assert load_recipe(file, model=model).training.batch_size == batch
    assert load_recipe(file, **{"network.model": model}).training.batch_size == batch
    assert load_recipe(file, model=model, batch_size=4).training.batch_size == 4
    assert load_recipe(file, **{"network.model": model, "training.batch_size": 4}).training.batch_size == 4


def test_the_network_may_stand_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("network: {model: resnet50}\nnetworks: {resnet50: {batch: 7}}")
    assert load_recipe(tmp_path / "deep.yaml").training.batch_size == 7


def test_an_experiment_makes_one_run_for_each_combination(file: Path) -> None:
    found = expand_recipes(file, experiment="starts")
    names = [f"{model}-init{init}" for model in ("resnet18", "resnet50") for init in ("scratch", "imagenet")]
    assert list(found) == names
    assert {one.training.epochs for one in found.values()} == {2}
    assert [one.training.batch_size for one in found.values()] == [32, 32, 16, 16]
    assert {name: one.training.batch_size for name, one in expand_recipes(file, experiment="depth").items()} == {
        "resnet18": 32,
        "resnet50": 16,
        "resnet152": 8,
    }


def test_an_experiment_may_compare_recipes(file: Path) -> None:
    found = expand_recipes(file, experiment="against")
    assert list(found) == [f"resnet18-{name}-seed{seed}" for name in ("demo", "leukemia-sgd") for seed in (0, 1)]
    assert found["resnet18-demo-seed1"] == load_recipe("demo", seed=1)
    assert found["resnet18-leukemia-sgd-seed0"] == load_recipe("leukemia-sgd")


def test_what_is_said_overrides_an_experiment(file: Path) -> None:
    changes = parse_changes(["experiment=starts", "network.model=resnet34", "epochs=1", "seed=0,1"])
    found = expand_recipes(file, **changes)
    assert list(found) == [f"resnet34-init{init}-seed{seed}" for init in ("scratch", "imagenet") for seed in (0, 1)]
    assert {one.training.epochs for one in found.values()} == {1}


@pytest.mark.parametrize(
    ("source", "experiment", "said"),
    [
        ("fundus", "pretrainig", "The recipe fundus has no experiment 'pretrainig'. Did you mean 'pretraining'?"),
        ("demo", "depth", "The recipe demo has no experiment 'depth'. It has none"),
        (None, "depth", "experiment=depth needs the recipe that has it"),
        (load_recipe("demo"), "depth", "experiment=depth needs the recipe that has it"),
        ("auto", "depth", "The recipe auto has no experiment 'depth'"),
    ],
)
def test_an_unknown_experiment_is_refused(source: str, experiment: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        expand_recipes(source, experiment=experiment)
    assert said in str(error.value)


def test_an_experiment_is_not_a_key() -> None:
    with pytest.raises(UsageError, match="An experiment is several runs"):
        load_recipe("fundus", **parse_changes(["experiment=pretraining"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reported: [{split: tset, percent: 3}]", "reported.0.split: Input should be 'train', 'valid' or 'test'"),
        ("networks: [resnet18]", "networks: Input should be a valid dictionary"),
        ("networks: {resnet18: {bacth: 3}}", "Did you mean 'batch'"),
    ],
)
def test_a_faulty_file_is_refused_with_the_reason(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_recipe(tmp_path / "mine.yaml")
    assert said in str(error.value)


def test_auto_has_no_file() -> None:
    with pytest.raises(UsageError, match="planned from the data"):
        load_recipe("auto")


@pytest.mark.parametrize("name", find_packaged_recipes())
def test_every_experiment_of_a_packaged_recipe_is_valid(name: str) -> None:
    for experiment in read_recipe_file(name).experiments:
        assert len(expand_recipes(name, experiment=experiment)) > 1


@pytest.mark.parametrize("name", DOCUMENTED)
def test_facts_about_a_packaged_recipe_speak_of_keys_that_it_has(name: str) -> None:
    file = read_recipe_file(name)
    assert set(file.chosen) <= set(list_keys())
    assert {key for figure in file.reported for key in figure.when} <= set(list_keys())
    assert set(file.networks) <= {"resnet18", "resnet50", "resnet152"}
