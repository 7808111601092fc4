"""The recipe `auto`: each choice follows from the fingerprint, the user's values are kept, and the plan is saved."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import parfocal
from parfocal.errors import UsageError
from parfocal.models.architectures import ARCHITECTURES
from parfocal.models.auto_init import Start, explain_misfit
from parfocal.models.resnet import build_resnet
from parfocal.recipe import list_keys, load_recipe
from parfocal.training import auto_minutes
from parfocal.training.autoconfig import SET_BY_USER, Plan, plan_from_fingerprint, plan_variants
from parfocal.training.fingerprint import Fingerprint

CELLS = Fingerprint(
    class_counts=(2_500, 5_495),
    n_groups=60,
    width=450,
    height=450,
    appearance="cell",
    disc_area=0.3,
    content_extent=0.64,
    rotation_reason="round",
)
EYES = Fingerprint(
    class_counts=(20_655, 1_955, 4_210, 698, 581),
    n_groups=14_050,
    width=3_888,
    height=2_592,
    appearance="disc",
    disc_area=0.74,
    ordinal_reason="grades",
    rotation_reason="round",
)
SCRATCH = Start("scratch", "no weights")
PRETRAINED = Start("imagenet", "at hand")
SMALL = Fingerprint(class_counts=(2_000,) * 10, n_groups=20_000, width=32, height=32)
QUICK: dict[str, Any] = {"model": "resnet20", "epochs": 1, "size": 32, "crop_size": 32, "precision": "float32"}


@pytest.fixture(autouse=True)
def _steady_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every network train on a million pixels a second."""
    monkeypatch.setattr(auto_minutes, "measure_pace", lambda *_: 1e6)


def _plan_values(fingerprint: Fingerprint, start: Start = SCRATCH, **user_values: Any) -> dict[str, Any]:
    """Return the values of the planned recipe by their short keys."""
    recipe = plan_from_fingerprint(fingerprint, user_values, start).recipe.model_dump()
    values: dict[str, Any] = {}
    for key, key_path in list_keys().items():
        values[key] = recipe[key_path[0]] if len(key_path) == 1 else recipe[key_path[0]][key_path[1]]
    return values


def _find_reason(fingerprint: Fingerprint, key: str, **user_values: Any) -> str:
    reasons = plan_from_fingerprint(fingerprint, user_values).reasons
    return {chosen_key: reason for chosen_key, _, reason in reasons}[key]


def test_cells_are_preprocessed_as_in_the_best_source_document() -> None:
    values = _plan_values(CELLS)
    assert (values["resize_mode"], values["size"], values["crop_size"]) == ("squash", 350, 224)
    assert (values["rotate"], values["flip_vertical"]) == (180, 0.5)
    assert (values["loss"], values["select"], values["sampling"]) == ("cross_entropy", "accuracy", "natural")


def test_fundus_photographs_are_trimmed_and_graded() -> None:
    values = _plan_values(EYES)
    assert values["crop_disc"]
    assert (values["resize_mode"], values["size"], values["crop_size"]) == ("pad", 224, 224)
    assert (values["loss"], values["select"], values["sampling"]) == ("joint", "quadratic_kappa", "natural")
    assert values["decide"] == "mean"
    assert (values["ordered"], values["referable"]) == (True, 2)
    assert _plan_values(EYES, ordered=False)["referable"] == 0
    assert _plan_values(EYES, loss="regression")["decide"] == "auto"
    assert (values["model"], values["batch_size"]) == ("resnet18", 32)


def test_a_gpu_allows_larger_images_networks_and_batches() -> None:
    large_gpu = replace(EYES, device="cuda", memory_gib=80.0)
    values = _plan_values(large_gpu)
    assert (values["size"], values["crop_size"]) == (512, 512)
    assert (values["model"], values["batch_size"]) == ("resnet50", 64)
    small_gpu = replace(EYES, device="cuda", memory_gib=8.0)
    assert 4 <= _plan_values(small_gpu)["batch_size"] < 32
    assert "MiB of the device's 8 GiB" in _find_reason(small_gpu, "batch_size")
    assert _plan_values(replace(CELLS, device="cuda", memory_gib=80.0))["model"] == "resnet18"


def test_small_images_keep_their_size_and_get_the_small_stem() -> None:
    values = _plan_values(SMALL)
    assert (values["size"], values["crop_size"], values["stem"]) == (32, 32, "small")
    assert (values["rotate"], values["flip_vertical"]) == (0, 0)
    assert (values["crop_position"], values["crop_padding"]) == ("random", 4)
    assert _plan_values(SMALL, model="resnet20")["stem"] is None


def test_an_automatic_batch_size_and_a_time_budget_are_planned_around() -> None:
    values = _plan_values(CELLS, batch_size=0, minutes=30.0)
    assert (values["batch_size"], values["minutes"]) == (0, 30)
    assert "as many images as fit on the device" in _find_reason(CELLS, "lr_scaling", batch_size=0)
    assert "minutes decides the length" in _find_reason(CELLS, "epochs", minutes=30.0)


def test_few_images_get_more_epochs_and_smaller_batches() -> None:
    values = [_plan_values(replace(CELLS, class_counts=(count, count))) for count in (50, 500, 5_000, 50_000)]
    batch_sizes = [plan["batch_size"] for plan in values]
    epochs = [plan["epochs"] for plan in values]
    assert batch_sizes == sorted(batch_sizes)
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] == 100
    assert epochs[-1] == 5


def test_pretrained_weights_are_trained_for_less_time_with_a_lower_learning_rate() -> None:
    scratch_values = _plan_values(CELLS)
    pretrained_values = _plan_values(CELLS, PRETRAINED)
    assert (scratch_values["init"], pretrained_values["init"]) == ("scratch", "imagenet")
    assert pretrained_values["learning_rate"] < scratch_values["learning_rate"]
    assert pretrained_values["epochs"] < scratch_values["epochs"]
    assert (scratch_values["zero_init_residual"], pretrained_values["zero_init_residual"]) == (True, False)
    assert _plan_values(CELLS, PRETRAINED, init="scratch") == {**scratch_values, "init": "scratch"}
    assert _plan_values(CELLS, PRETRAINED, init="auto") == pretrained_values


def test_small_images_are_enlarged_for_pretrained_weights() -> None:
    values = _plan_values(SMALL, PRETRAINED)
    assert (values["size"], values["crop_size"], values["stem"]) == (160, 160, None)
    assert _plan_values(replace(SMALL, device="cuda"), PRETRAINED)["crop_size"] == 224
    assert _plan_values(replace(SMALL, width=65, height=65), PRETRAINED)["crop_size"] == 65
    values = _plan_values(replace(SMALL, content_extent=0.5), PRETRAINED)
    assert (values["size"], values["crop_size"]) == (320, 160)
    assert _plan_values(SMALL, PRETRAINED, crop_size=32)["size"] == 32


def test_the_network_follows_the_users_weights(tmp_path: Path) -> None:
    large_gpu = replace(EYES, device="cuda", memory_gib=80.0)
    assert _plan_values(large_gpu, PRETRAINED)["model"] == "resnet50"
    torch.save(build_resnet("resnet18", 5).state_dict(), tmp_path / "w.pth")
    values = _plan_values(large_gpu, init=str(tmp_path / "w.pth"))
    assert (values["model"], values["learning_rate"]) == (
        "resnet18",
        _plan_values(large_gpu, PRETRAINED)["learning_rate"],
    )
    assert _find_reason(large_gpu, "model", init=str(tmp_path / "w.pth")) == "the initial weights are of such a network"
    assert _plan_values(large_gpu, init=str(tmp_path / "w.pth"), model="resnet50")["model"] == "resnet50"
    torch.save(build_resnet("resnet18", 5, stem="small").state_dict(), tmp_path / "small.pth")
    values = _plan_values(SMALL, init=str(tmp_path / "small.pth"))
    assert (values["model"], values["stem"], values["crop_size"]) == ("resnet18", "small", 32)


@pytest.mark.parametrize(
    ("class_counts", "select"),
    [
        ((100, 100), "accuracy"),
        ((100, 290), "accuracy"),
        ((100, 310), "balanced_accuracy"),
        ((100, 0, 100), "accuracy"),
        ((50, 50, 310), "balanced_accuracy"),
    ],
)
def test_class_imbalance_changes_the_selection_metric_and_not_the_sampling(
    class_counts: tuple[int, ...], select: str
) -> None:
    values = _plan_values(replace(CELLS, class_counts=class_counts))
    assert (values["select"], values["sampling"]) == (select, "natural")


def test_the_learning_rate_and_weight_decay_suit_the_users_optimizer() -> None:
    sgd = _plan_values(CELLS, optimizer="sgd")
    adam = _plan_values(CELLS, optimizer="adam")
    adamw = _plan_values(CELLS, optimizer="adamw")
    assert sgd["nesterov"]
    assert not adam["nesterov"]
    assert adam["learning_rate"] == adamw["learning_rate"] < sgd["learning_rate"]
    assert adam["weight_decay"] < adamw["weight_decay"]
    assert not _plan_values(CELLS, momentum=0)["nesterov"]


def test_the_users_values_are_kept_and_marked_as_such() -> None:
    user_values = {"crop_size": 300, "model": "resnet152", "epochs": 2, "loss": "focal"}
    values = _plan_values(EYES, **user_values)
    assert {key: values[key] for key in user_values} == user_values
    assert values["size"] == 300
    assert _plan_values(EYES, schedule="cosine", **user_values)["warmup"] <= 2
    reasons = plan_from_fingerprint(EYES, user_values).reasons
    assert [(key, reason) for key, _, reason in reasons[:4]] == [(key, SET_BY_USER) for key in user_values]


FINGERPRINTS = st.builds(
    Fingerprint,
    class_counts=st.lists(st.integers(0, 50_000), min_size=1, max_size=10).filter(any).map(tuple),
    n_groups=st.integers(1, 1_000),
    width=st.integers(1, 8_000),
    height=st.integers(1, 8_000),
    appearance=st.sampled_from(["plain", "disc", "cell"]),
    disc_area=st.floats(0.1, 1),
    content_extent=st.floats(0.1, 1),
    ordinal_reason=st.sampled_from(["", "grades"]),
    rotation_reason=st.sampled_from(["", "round"]),
    device=st.sampled_from(["cpu", "cuda"]),
    memory_gib=st.floats(0.5, 200),
)

# Each value is valid in a recipe, and no two of them contradict each other.
USER_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "crop_size": st.integers(32, 600),
        "epochs": st.integers(30, 200),
        "warmup": st.integers(0, 30),
        "batch_size": st.integers(0, 300),
        "minutes": st.floats(0, 90),
        "model": st.sampled_from(list(ARCHITECTURES)),
        "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
        "momentum": st.sampled_from([0, 0.5, 0.9]),
        "schedule": st.sampled_from(["constant", "cosine", "one_cycle", "plateau"]),
        "label_smoothing": st.floats(0, 0.5),
        "logit_adjustment": st.floats(0, 2),
        "normalization": st.sampled_from(["none", "half", "dataset", "sample", "whiten"]),
        "stride_in": st.sampled_from(["3x3", "1x1", "second"]),
        "conv_bias": st.booleans(),
        "precision": st.sampled_from(["auto", "float32"]),
        "crop_disc": st.booleans(),
        "ordered": st.booleans(),
    },
)


@given(fingerprint=FINGERPRINTS, user_values=USER_VALUES, fits=st.booleans())
def test_a_plan_is_always_a_valid_recipe_with_a_reason_for_every_choice(
    fingerprint: Fingerprint, user_values: dict[str, Any], fits: bool
) -> None:
    preliminary = plan_from_fingerprint(fingerprint, user_values)
    assert preliminary.recipe.network.init == "auto"
    is_pretrained = fits and not explain_misfit(preliminary.recipe.network)
    plan = preliminary.resolve_init(PRETRAINED if is_pretrained else SCRATCH)
    assert plan.recipe.network.model == preliminary.recipe.network.model
    default_values = load_recipe(None, name="auto", about=plan.recipe.about).model_dump()
    values = plan.recipe.model_dump()
    chosen_keys = {key for key, _, _ in plan.reasons}
    for key, key_path in list_keys().items():
        if len(key_path) == 2:
            section, name = key_path
            assert key in chosen_keys or values[section][name] == default_values[section][name]
    for key, value in user_values.items():
        section, name = list_keys()[key]
        assert values[section][name] == value
    assert all(reason and len(reason) < 120 for _, _, reason in plan.reasons)
    assert len(chosen_keys) == len(plan.reasons)
    assert (values["views"]["rotate"] == 180) == bool(fingerprint.rotation_reason)
    assert "batch_size" in user_values or values["training"]["batch_size"] >= 2


def test_a_plan_suits_the_data_and_gives_reasons(cells: Path) -> None:
    plan = parfocal.plan(cells, epochs=3)
    assert plan.recipe.name == "auto"
    assert plan.recipe.about.startswith("Planned for 48 training images of 24 patients")
    assert plan.recipe.images.size == 48
    assert 24 < plan.recipe.views.crop_size < 48
    assert plan.recipe.training.epochs == 3
    assert plan.recipe.network.init == "scratch"
    markdown = plan.to_markdown()
    assert "| `epochs` | 3 | set by you |" in markdown
    assert "| `stem` | small |" in markdown


def test_names_cannot_add_markup_to_a_plan() -> None:
    reasons = (("oversample", "<b>", "![x](http:y) is | rare"),)
    text = Plan(load_recipe(None).model_copy(update={"about": "# <script>"}), reasons).to_markdown()
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert "<p># &lt;script&gt;</p>" in rendered
    assert "<td>![x](http:y) is | rare</td>" in rendered
    assert not re.search(r"<(b|img|script)\b", rendered)


def test_the_users_split_is_the_split_that_is_measured(cells: Path) -> None:
    plan = parfocal.plan(cells, keep=False, **{"split.valid": 0.5})
    assert plan.recipe.split.valid == 0.5
    assert int(plan.recipe.about.split()[2]) < 48


def test_values_in_lists_make_one_plan_each(cells: Path) -> None:
    variants = plan_variants(cells, model=["resnet18", "resnet20"], optimizer=["sgd", "adam"])
    plans = {name: plan.resolve_init(SCRATCH) for name, plan in variants.items()}
    assert list(plans) == [
        "resnet18-optimizersgd",
        "resnet18-optimizeradam",
        "resnet20-optimizersgd",
        "resnet20-optimizeradam",
    ]
    assert [plan.recipe.training.learning_rate for plan in plans.values()] == [0.05, 0.001] * 2
    assert [plan.recipe.network.stem for plan in plans.values()] == ["small", "small", None, None]


def test_a_mistake_in_the_users_values_is_named(cells: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        parfocal.plan(cells, epohcs=3)
    with pytest.raises(UsageError, match=r"views\.crop_size=wide"):
        parfocal.plan(cells, crop_size="wide")


def test_auto_trains_by_its_plan_and_resumes_with_it(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    assert run.recipe == parfocal.plan(cells, **QUICK).recipe
    assert "set by you" in run.plan_path.read_text(encoding="utf-8")
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr("parfocal.training.train.plan_variants", pytest.fail)
    (resumed,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True)
    assert resumed.is_finished
    assert resumed.plan_path.is_file()


def test_a_planned_run_keeps_its_recipe_when_it_is_resumed_with_less_memory(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    recipe = run.recipe
    plan_text = run.plan_path.read_text(encoding="utf-8")
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr("parfocal.training.fingerprint._get_device_memory_gib", lambda: 0.001)
    assert parfocal.plan(cells, **QUICK).recipe.training.batch_size < recipe.training.batch_size
    with pytest.raises(UsageError, match=r"another recipe: training\.epochs was 1, now 2\. Choose"):
        parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, **{**QUICK, "epochs": 2})
    (resumed,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, **QUICK)
    assert resumed.is_finished
    assert resumed.recipe == recipe
    assert resumed.plan_path.read_text(encoding="utf-8") == plan_text


def test_a_planned_run_keeps_its_network_when_it_is_resumed(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    assert parfocal.plan(cells, epochs=1).recipe.network.model != run.name
    (resumed,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, epochs=1)
    assert resumed.name == run.name


def test_a_run_that_was_not_planned_has_no_plan_file(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **QUICK)
    assert not run.plan_path.exists()


def test_more_minutes_allow_larger_images_and_more_epochs() -> None:
    plans = [_plan_values(EYES, minutes=minutes) for minutes in (1.0, 60.0, 600.0)]
    assert [values["crop_size"] for values in plans] == [96, 160, 224]
    assert [values["size"] for values in plans] == [96, 160, 224]
    assert [values["epochs"] for values in plans] == [1, round(0.65 * 60 * 60 * 1e6 / (EYES.n_images * 160**2)), 17]
    assert _plan_values(EYES, minutes=1.0, size=224, crop_size=224)["crop_size"] == 224


def test_few_minutes_fit_only_the_head_of_a_pretrained_network() -> None:
    few = replace(EYES, class_counts=(1_000, 200, 600, 100, 100))
    values = _plan_values(few, PRETRAINED, minutes=2.0)
    assert (values["head"], values["crop_size"], values["loss"]) == ("probe", 224, "joint")
    assert _plan_values(few, PRETRAINED, minutes=30.0)["head"] == "random"
    assert _plan_values(few, minutes=2.0)["head"] == "random"
    assert _plan_values(few, PRETRAINED, minutes=2.0, loss="regression")["head"] == "random"
    # Larger sets gain more from fine-tuning.
    assert _plan_values(EYES, PRETRAINED, minutes=2.0)["head"] == "random"


@pytest.mark.parametrize(("n_evaluated", "tta"), [(100, "d4"), (300, "flips"), (20_000, "none")])
def test_the_minutes_decide_how_many_views_are_averaged(n_evaluated: int, tta: str) -> None:
    assert _plan_values(replace(EYES, n_evaluated=n_evaluated), minutes=0.5)["tta"] == tta
    assert _plan_values(replace(EYES, n_evaluated=n_evaluated))["tta"] == "d4"
