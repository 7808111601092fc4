"""The rules of `auto`: each choice follows from the facts, what is said stands, and the whole is always a recipe."""
# MERGED: """Plans from a folder: made, kept with the runs, and gone on with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import parfocal
from parfocal.errors import UsageError
from parfocal.models.resnet import ARCHITECTURES
from parfocal.recipe import list_keys, load_recipe
from parfocal.training.autoconfig import SET_BY_USER, plan_from_fingerprint, plan_variants
from parfocal.training.fingerprint import Fingerprint

CELLS = Fingerprint(
    class_counts=(2_500, 5_495),
    n_groups=60,
    width=450,
    height=450,
    appearance="cell",
    disc_area=0.3,
    content_extent=0.64,
    rotation_reason="so",
)
EYES = Fingerprint(
    class_counts=(20_655, 1_955, 4_210, 698, 581),
    n_groups=14_050,
    width=3_888,
    height=2_592,
    appearance="disc",
    disc_area=0.74,
    ordinal_reason="grades",
    rotation_reason="so",
)
SMALL = Fingerprint(class_counts=(2_000,) * 10, n_groups=20_000, width=32, height=32)


def _planned(facts: Fingerprint, **said: Any) -> dict[str, Any]:
    """Return the plan's values by their short keys."""
    made = plan_from_fingerprint(facts, said).recipe.model_dump()
    values: dict[str, Any] = {}
    for key, place in list_keys().items():
        values[key] = made[place[0]] if len(place) == 1 else made[place[0]][place[1]]
    return values


def _reason(facts: Fingerprint, key: str, **said: Any) -> str:
    return {one: why for one, _, why in plan_from_fingerprint(facts, said).reasons}[key]


def test_cells_are_framed_as_the_documents_found_it_best() -> None:
    made = _planned(CELLS)
    assert (made["resize_mode"], made["size"], made["crop_size"]) == ("squash", 350, 224)
    assert (made["rotate"], made["flip_vertical"]) == (180, 0.5)
    assert (made["loss"], made["select"], made["sampling"]) == ("cross_entropy", "accuracy", "natural")


def test_eyes_are_trimmed_and_graded() -> None:
    made = _planned(EYES)
    assert (made["crop_disc"], made["resize_mode"], made["size"], made["crop_size"]) == (True, "pad", 224, 224)
    assert (made["loss"], made["select"], made["sampling"]) == ("regression", "quadratic_kappa", "square_root")
    assert (made["ordered"], made["referable"]) == (True, 2)
    assert _planned(EYES, ordered=False)["referable"] == 0
    assert _planned(EYES, label_smoothing=0.1)["loss"] == "cumulative_link"
    assert (made["model"], made["batch_size"]) == ("resnet18", 32)


def test_a_graphics_card_carries_more() -> None:
    made = _planned(replace(EYES, device="cuda", memory_gib=80.0))
    assert (made["size"], made["crop_size"], made["model"], made["batch_size"]) == (512, 512, "resnet50", 64)
    small = _planned(replace(EYES, device="cuda", memory_gib=8.0))
    assert 4 <= small["batch_size"] < 32
    assert "MiB of the device's 8 GiB" in _reason(replace(EYES, device="cuda", memory_gib=8.0), "batch_size")
    few = _planned(replace(CELLS, device="cuda", memory_gib=80.0))
    assert few["model"] == "resnet18"


def test_small_images_keep_their_size_and_get_a_stem_that_sees_them() -> None:
    made = _planned(SMALL)
    assert (made["size"], made["crop_size"], made["stem"]) == (32, 32, "small")
    assert (made["rotate"], made["flip_vertical"], made["crop_position"], made["crop_padding"]) == (0, 0, "random", 4)
    assert _planned(SMALL, model="resnet20")["stem"] is None


def test_a_batch_that_is_left_to_the_device_and_a_budget_of_time_are_planned_around() -> None:
    made = _planned(CELLS, batch_size=0, minutes=30.0)
    assert (made["batch_size"], made["minutes"]) == (0, 30)
    assert "as many images as the device takes" in _reason(CELLS, "lr_scaling", batch_size=0)
    assert _reason(CELLS, "epochs", minutes=30.0) == "minutes goes before"


def test_few_images_are_seen_in_more_epochs_and_smaller_batches() -> None:
    made = [_planned(replace(CELLS, class_counts=(count, count))) for count in (50, 500, 5_000, 50_000)]
    assert [one["batch_size"] for one in made] == sorted(one["batch_size"] for one in made)
    assert [one["epochs"] for one in made] == sorted((one["epochs"] for one in made), reverse=True)
    assert made[0]["epochs"] == 100
    assert made[-1]["epochs"] == 5


def test_weights_at_hand_are_taken_and_trained_on_gently() -> None:
    begun = replace(CELLS, cached_networks=("resnet18",))
    fresh, made = _planned(CELLS), _planned(begun)
    assert (fresh["init"], made["init"]) == ("scratch", "imagenet")
    assert made["learning_rate"] < fresh["learning_rate"]
    assert made["epochs"] < fresh["epochs"]
    assert (fresh["zero_init_residual"], made["zero_init_residual"]) == (True, False)
    assert _planned(begun, normalization="none")["init"] == "scratch"
    assert _planned(begun, stride_in="1x1")["init"] == "scratch"
    assert _planned(begun, model="resnet50")["init"] == "scratch"
    assert _planned(replace(SMALL, cached_networks=("resnet18",)))["init"] == "scratch"


@pytest.mark.parametrize(
    ("counts", "select", "sampling"),
    [
        ((100, 100), "accuracy", "natural"),
        ((100, 210), "accuracy", "natural"),
        ((100, 290), "accuracy", "natural"),
        ((100, 310), "balanced_accuracy", "square_root"),
        ((100, 0, 100), "accuracy", "natural"),
        ((50, 50, 310), "balanced_accuracy", "square_root"),
    ],
)
def test_uneven_classes_change_what_chooses_and_what_is_shown(
    counts: tuple[int, ...], select: str, sampling: str
) -> None:
    made = _planned(replace(CELLS, class_counts=counts))
    assert (made["select"], made["sampling"]) == (select, sampling)


def test_rates_go_with_the_optimiser_that_is_said() -> None:
    sgd, adam, adamw = (_planned(CELLS, optimizer=kind) for kind in ("sgd", "adam", "adamw"))
    assert sgd["nesterov"]
    assert not adam["nesterov"]
    assert adam["learning_rate"] == adamw["learning_rate"] < sgd["learning_rate"]
    assert adam["weight_decay"] < adamw["weight_decay"]
    assert not _planned(CELLS, momentum=0)["nesterov"]


def test_what_is_said_stands_and_is_so_explained() -> None:
    said = {"crop_size": 300, "model": "resnet152", "epochs": 2, "loss": "focal"}
    made = _planned(EYES, **said)
    assert {key: made[key] for key in said} == said
    assert made["size"] == 300
    assert _planned(EYES, schedule="cosine", **said)["warmup"] <= 2
    reasons = plan_from_fingerprint(EYES, said).reasons
    assert [(key, why) for key, _, why in reasons[:4]] == [(key, SET_BY_USER) for key in said]


FACTS = st.builds(
    Fingerprint,
    counts=st.lists(st.integers(0, 50_000), min_size=1, max_size=10).filter(any).map(tuple),
    groups=st.integers(1, 1_000),
    width=st.integers(1, 8_000),
    height=st.integers(1, 8_000),
    look=st.sampled_from(["plain", "disc", "cell"]),
    box=st.floats(0.1, 1),
    spread=st.floats(0.1, 1),
    grades=st.sampled_from(["", "grades"]),
    turned=st.sampled_from(["", "so"]),
    device=st.sampled_from(["cpu", "cuda"]),
    memory=st.floats(0.5, 200),
    published=st.sampled_from([(), ("resnet18",), ("resnet18", "resnet50")]),
)

# Each value is one that a recipe may have, and no two of them are at odds with one another.
SAID = st.fixed_dictionaries(
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
        "normalization": st.sampled_from(["none", "half", "dataset", "whiten"]),
        "stride_in": st.sampled_from(["3x3", "1x1"]),
        "precision": st.sampled_from(["auto", "float32"]),
        "crop_disc": st.booleans(),
        "ordered": st.booleans(),
    },
)


@given(facts=FACTS, said=SAID)
def test_a_plan_is_always_a_recipe_with_a_reason_for_every_choice(facts: Fingerprint, said: dict[str, Any]) -> None:
    made = plan_from_fingerprint(facts, said)
    plain = load_recipe(None, name="auto", about=made.recipe.about)
    values = made.recipe.model_dump()
    decided = {key for key, _, _ in made.reasons}
    for key, place in list_keys().items():
        if len(place) == 2:
            changed = values[place[0]][place[1]] != plain.model_dump()[place[0]][place[1]]
            assert key in decided or not changed
    for key, value in said.items():
        place = list_keys()[key]
        assert values[place[0]][place[1]] == value
    assert all(why and len(why) < 120 for _, _, why in made.reasons)
    assert len(decided) == len(made.reasons)
    assert (values["views"]["rotate"] == 180) == bool(facts.rotation_reason)
    assert "batch_size" in said or values["training"]["batch_size"] >= 2


QUICK: dict[str, Any] = {"model": "resnet20", "epochs": 1, "size": 32, "crop_size": 32, "precision": "float32"}


def test_a_plan_fits_the_folder_and_says_why(cells: Path) -> None:
    made = parfocal.plan(cells, epochs=3)
    assert made.recipe.name == "auto"
    assert made.recipe.about.startswith("Planned for 48 images of 24 patients")
    assert made.recipe.images.size == 48
    assert 24 < made.recipe.views.crop_size < 48
    assert made.recipe.training.epochs == 3
    page = made.to_markdown()
    assert "| `epochs` | 3 | you said so |" in page
    assert "| `stem` | small |" in page


def test_the_split_that_is_said_is_the_one_that_is_measured(cells: Path) -> None:
    made = parfocal.plan(cells, keep=False, **{"split.valid": 0.5})
    assert made.recipe.split.valid == 0.5
    images = int(made.recipe.about.split()[2])
    assert images < 48


def test_values_in_lists_make_one_plan_each(cells: Path) -> None:
    made = plan_variants(cells, model=["resnet18", "resnet20"], optimizer=["sgd", "adam"])
    assert list(made) == [f"{model}-optimiser{kind}" for model in ("resnet18", "resnet20") for kind in ("sgd", "adam")]
    assert [one.recipe.training.learning_rate for one in made.values()] == [0.05, 0.001] * 2
    assert [one.recipe.network.stem for one in made.values()] == ["small", "small", None, None]


def test_a_mistake_in_what_is_said_is_named(cells: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'epochs'"):
        parfocal.plan(cells, epohcs=3)
    with pytest.raises(UsageError, match=r"views\.crop=wide"):
        parfocal.plan(cells, crop_size="wide")


def test_auto_trains_by_its_plan_and_goes_on_with_it(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    assert run.recipe == parfocal.plan(cells, **QUICK).recipe
    assert "you said so" in run.plan_path.read_text(encoding="utf-8")
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr("parfocal.training.train.plan_variants", pytest.fail)
    (again,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True)
    assert again.is_finished
    assert again.plan_path.is_file()


def test_a_planned_run_goes_on_as_it_was_begun_where_less_memory_is_measured(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    begun, why = run.recipe, run.plan_path.read_text(encoding="utf-8")
    (run.folder / "metrics.json").unlink()
    monkeypatch.setattr("parfocal.training.fingerprint._machine_memory_gb", lambda: (0.001, "cpu"))
    assert parfocal.plan(cells, **QUICK).recipe.training.batch_size < begun.training.batch_size
    with pytest.raises(UsageError, match=r"another recipe: training\.epochs was 1, now 2\. Choose"):
        parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, **{**QUICK, "epochs": 2})
    (again,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, **QUICK)
    assert again.is_finished
    assert again.recipe == begun
    assert again.plan_path.read_text(encoding="utf-8") == why


def test_a_planned_run_keeps_its_network_where_another_would_be_planned_now(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, "auto", out=tmp_path / "runs", **QUICK)
    assert parfocal.plan(cells, epochs=1).recipe.network.model != run.name
    (again,) = parfocal.train(cells, "auto", out=tmp_path / "runs", resume=True, epochs=1)
    assert again.name == run.name


def test_a_run_that_was_not_planned_has_no_plan(cells: Path, tmp_path: Path) -> None:
    (run,) = parfocal.train(cells, out=tmp_path / "runs", **QUICK)
    assert not run.plan_path.exists()
