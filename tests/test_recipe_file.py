"""Recipe files: values for single networks, experiments, and what a source document reports."""

from pathlib import Path

import pytest

from parfocal.errors import UsageError
from parfocal.recipe import Recipe, expand_recipes, list_keys, load_recipe, parse_changes
from parfocal.recipe_file import find_packaged_recipes, read_recipe_file

DOCUMENTED = [name for name in find_packaged_recipes() if read_recipe_file(name).document]

FILE = """
document: a paper
training: {batch_size: 32, epochs: 3}
networks: {resnet50: {batch_size: 16}, resnet152: {training.batch_size: 8, learning_rate: 0.01}}
experiments:
  depth: {model: [resnet18, resnet50, resnet152]}
  starts: {model: [resnet18, resnet50], init: [scratch, imagenet], epochs: 2}
  against: {recipe: [demo, leukemia-sgd], seed: [0, 1]}
reported: [{split: test, percent: 91.5, when: {model: resnet18}}]
assumptions: {epochs: not stated}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(FILE)
    return tmp_path / "mine.yaml"


def test_facts_about_a_recipe_file_are_not_settings_of_the_recipe(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    expected = load_recipe(None, name="mine", batch_size=32, epochs=3)
    assert recipe == expected
    assert recipe.compute_hash() == expected.compute_hash()
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert not {"reported", "experiments", "networks", "assumptions"} & set(recipe.model_dump())


@pytest.mark.parametrize(
    ("model", "batch_size"), [("resnet18", 32), ("resnet50", 16), ("resnet152", 8), ("resnet34", 32)]
)
def test_values_for_a_network_apply_if_it_is_chosen(file: Path, model: str, batch_size: int) -> None:
    assert load_recipe(file, model=model).training.batch_size == batch_size
    assert load_recipe(file, **{"network.model": model}).training.batch_size == batch_size
    assert load_recipe(file, model=model, batch_size=4).training.batch_size == 4
    assert load_recipe(file, **{"network.model": model, "training.batch_size": 4}).training.batch_size == 4


def test_the_file_may_choose_the_network(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("network: {model: resnet50}\nnetworks: {resnet50: {batch_size: 7}}")
    assert load_recipe(tmp_path / "deep.yaml").training.batch_size == 7


BY_START = """
network: {init: auto}
training: {optimizer: adamw, learning_rate: 0.5}
networks: {resnet50: {epochs: 7}}
by_start:
  scratch: {lr: 0.01, epochs: 60, training.weight_decay: 0.05}
  pretrained: {learning_rate: 0.003, epochs: 25}
experiments: {pretraining: {init: [scratch, imagenet]}}
"""


@pytest.fixture
def by_start_file(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(BY_START)
    return tmp_path / "mine.yaml"


def _get_values(recipe: Recipe) -> tuple[float, int, float]:
    training = recipe.training
    return training.learning_rate, training.epochs, training.weight_decay


def test_values_by_start_apply_to_the_initial_weights_of_each_variant(by_start_file: Path, tmp_path: Path) -> None:
    recipes = expand_recipes(by_start_file, experiment="pretraining")
    assert _get_values(recipes["resnet18-initscratch"]) == (0.01, 60, 0.05)
    assert _get_values(recipes["resnet18-initimagenet"]) == (0.003, 25, 0)
    assert _get_values(load_recipe(by_start_file, init="weights.pth")) == (0.003, 25, 0)
    recipes["resnet18-initscratch"].save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipes["resnet18-initscratch"]


def test_values_by_start_wait_until_the_start_is_known(by_start_file: Path) -> None:
    recipe = load_recipe(by_start_file)
    assert (recipe.network.init, _get_values(recipe)) == ("auto", (0.5, 20, 0))
    for init in ("scratch", "imagenet"):
        assert load_recipe(load_recipe(recipe, seed=1), init=init) == load_recipe(by_start_file, init=init, seed=1)


def test_changes_and_values_for_a_network_override_values_by_start(by_start_file: Path) -> None:
    assert _get_values(load_recipe(by_start_file, init="scratch", lr=0.2)) == (0.2, 60, 0.05)
    assert _get_values(load_recipe(load_recipe(by_start_file, lr=0.2), init="scratch")) == (0.2, 60, 0.05)
    assert _get_values(load_recipe(load_recipe(by_start_file), init="scratch", epochs=3)) == (0.01, 3, 0.05)
    assert load_recipe(by_start_file, init="imagenet", model="resnet50").training.epochs == 7
    deep = load_recipe(by_start_file, model="resnet50")
    assert load_recipe(deep, init="scratch").training.epochs == 7


def test_an_experiment_gives_one_recipe_per_combination(file: Path) -> None:
    recipes = expand_recipes(file, experiment="starts")
    names = [f"{model}-init{init}" for model in ("resnet18", "resnet50") for init in ("scratch", "imagenet")]
    assert list(recipes) == names
    assert {recipe.training.epochs for recipe in recipes.values()} == {2}
    assert [recipe.training.batch_size for recipe in recipes.values()] == [32, 32, 16, 16]
    assert {name: recipe.training.batch_size for name, recipe in expand_recipes(file, experiment="depth").items()} == {
        "resnet18": 32,
        "resnet50": 16,
        "resnet152": 8,
    }


def test_an_experiment_may_compare_recipes(file: Path) -> None:
    recipes = expand_recipes(file, experiment="against")
    assert list(recipes) == [f"resnet18-{name}-seed{seed}" for name in ("demo", "leukemia-sgd") for seed in (0, 1)]
    assert recipes["resnet18-demo-seed1"] == load_recipe("demo", seed=1)
    assert recipes["resnet18-leukemia-sgd-seed0"] == load_recipe("leukemia-sgd")


def test_changes_override_an_experiment(file: Path) -> None:
    changes = parse_changes(["experiment=starts", "network.model=resnet34", "epochs=1", "seed=0,1"])
    recipes = expand_recipes(file, **changes)
    assert list(recipes) == [f"resnet34-init{init}-seed{seed}" for init in ("scratch", "imagenet") for seed in (0, 1)]
    assert {recipe.training.epochs for recipe in recipes.values()} == {1}


@pytest.mark.parametrize(
    ("source", "experiment", "message"),
    [
        ("fundus", "pretrainig", "The recipe fundus has no experiment 'pretrainig'. Did you mean 'pretraining'?"),
        ("demo", "depth", "The recipe demo has no experiment 'depth'. It has no experiments"),
        (None, "depth", "experiment=depth needs a recipe that defines it"),
        (load_recipe("demo"), "depth", "experiment=depth needs a recipe that defines it"),
        ("auto", "depth", "The recipe auto has no experiment 'depth'"),
    ],
)
def test_an_unknown_experiment_is_rejected(source: str, experiment: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        expand_recipes(source, experiment=experiment)
    assert message in str(error.value)


def test_an_experiment_is_not_a_key() -> None:
    with pytest.raises(UsageError, match="only `parfocal train` accepts it"):
        load_recipe("fundus", **parse_changes(["experiment=pretraining"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reported: [{split: tset, percent: 3}]", "reported.0.split: Input should be 'train', 'valid' or 'test'"),
        ("networks: [resnet18]", "networks: Input should be a valid dictionary"),
        ("networks: {resnet18: {bacth_size: 3}}", "Did you mean 'batch_size'"),
        ("by_start: {imagenet: {epochs: 3}}", "by_start.imagenet.[key]: Input should be 'scratch' or 'pretrained'"),
        ("by_start: {pretrained: {epohcs: 3}}", "Did you mean 'epochs'"),
        ("by_start: {pretrained: {epochs: many}}", "training.epochs=many: Input should be a valid integer"),
        ("by_start: {scratch: {lr: 1, learning_rate: 2}}", "lr and learning_rate are the same key"),
        ("by_start: {scratch: {init: imagenet}}", "scratch sets init, which decides the start"),
    ],
)
def test_an_invalid_file_is_rejected_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_recipe(tmp_path / "mine.yaml")
    assert message in str(error.value)


def _nest_aliases(n_levels: int, n_repeats: int) -> str:
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * n_repeats)}]" for level in range(1, n_levels)]
    return "\n".join(["experiments:", " e:", *(f"  {line}" for line in ["a0: &a0 [x]", *levels])])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(_nest_aliases(9, 10) + "\ntraining: {epochs: *a8}", "more than 20,000 values", id="alias bomb"),
        pytest.param("training: &a {epochs: 1, b: {<<: *a}}", "a value that contains it", id="merged into itself"),
        pytest.param("about: &a [*a]", "a value that contains it", id="in itself"),
        pytest.param(_nest_aliases(40, 1), "30 levels, with aliases written out", id="deep by aliases"),
        pytest.param("about: " + "[" * 2000 + "]" * 2000, "nested more than 30 levels deep", id="deep lists"),
        pytest.param("about: " + "{a: " * 2000 + "}" * 2000, "nested more than 30 levels deep", id="deep mappings"),
        pytest.param("- " * 2000, "nested more than 30 levels deep", id="deep blocks"),
        pytest.param(f"about: {'x' * 300_000}", "longer than 250,000 characters", id="long"),
        pytest.param(f"about: [{'0,' * 30_000}]", "more than 20,000 values", id="many values"),
        pytest.param("about: !!int ''", "the type of its tag", id="empty number"),
        pytest.param("about: !!bool maybe", "the type of its tag", id="no boolean"),
        pytest.param("about: 0x_", "not valid YAML", id="no number"),
    ],
)
def test_yaml_that_would_take_memory_or_time_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        load_recipe(tmp_path / "mine.yaml")
    assert "mine.yaml is not valid YAML: " in str(error.value)
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_yaml_with_a_few_aliases_is_read(tmp_path: Path) -> None:
    text = (
        "training: &small {epochs: 3, batch_size: 4}\nnetworks: {resnet18: {<<: *small, epochs: 2}, resnet50: *small}"
    )
    (tmp_path / "mine.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.yaml", model="resnet18")
    assert (recipe.training.epochs, recipe.training.batch_size) == (2, 4)


def test_auto_has_no_file() -> None:
    with pytest.raises(UsageError, match="configures it from the data"):
        load_recipe("auto")


@pytest.mark.parametrize("name", find_packaged_recipes())
def test_every_experiment_of_a_packaged_recipe_is_valid(name: str) -> None:
    for experiment in read_recipe_file(name).experiments:
        assert len(expand_recipes(name, experiment=experiment)) > 1


@pytest.mark.parametrize("name", DOCUMENTED)
def test_facts_about_a_packaged_recipe_name_existing_keys(name: str) -> None:
    file = read_recipe_file(name)
    assert set(file.assumptions) <= set(list_keys())
    assert {key for reported in file.reported for key in reported.when} <= set(list_keys())
    assert set(file.networks) <= {"resnet18", "resnet50", "resnet152"}
