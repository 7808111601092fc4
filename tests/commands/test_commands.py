"""The command line from outside: help, words, exit codes, and one message for every mistake."""

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from parfocal.commands import app
from parfocal.recipe import load_recipe
from tests.cells import SMALL_RECIPE, draw_cell, write_image
from tests.commands.run_command import expect_error, parfocal, parfocal_subprocess

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
QUICK_RECIPE = [f"{key}={value}" for key, value in {**SMALL_RECIPE, "epochs": 1}.items()]


def test_the_verbs_are_those_of_the_design() -> None:
    assert COMMANDS == [
        "demo", "synthesise", "check", "plan", "prepare", "train", "evaluate", "compare", "predict", "explain",
        "export", "serve", "bench", "recipes",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = parfocal(verb, "--help")
    assert done.returncode == 0
    assert f"Example: parfocal {verb}" in " ".join(done.stdout.split())


def test_version_and_help() -> None:
    from parfocal import __version__

    assert parfocal_subprocess("--version").stdout.strip() == f"parfocal {__version__}"
    assert "train" in parfocal("-h").stdout


def test_from_drawn_images_to_a_page(tmp_path: Path) -> None:
    smears, runs = tmp_path / "smears", tmp_path / "runs"
    assert "Drawn:" in parfocal("synthesise", "smear", smears, "--images", "60").stdout
    assert "Ready to train." in parfocal("check", smears, "-o", tmp_path / "findings.json").stdout
    assert (tmp_path / "findings.json").is_file()
    assert "Findings:" in parfocal("check", smears, "-o", tmp_path / "page.html").stdout
    assert (tmp_path / "page.html").is_file()
    assert (tmp_path / "page.json").is_file()
    assert "60 images of 40×40" in parfocal("prepare", smears, *QUICK_RECIPE).stdout
    done = parfocal("train", smears, *QUICK_RECIPE, "model=resnet20,plain20", "--out", runs)
    assert done.returncode == 0, done.stderr
    assert "majority" in done.stdout
    assert (runs / "report.html").is_file()
    assert (runs / "resnet20" / "report.html").is_file()
    shown = parfocal("evaluate", runs).stdout.splitlines()
    assert [line.split()[0] for line in shown[1:-1]] == ["plain20", "plain20", "resnet20", "resnet20"]
    assert shown[-1].startswith("Too few groups (patients) for intervals")
    said = parfocal("evaluate", runs / "resnet20", "--operating", "sensitivity=0.9", "--refer", "0.5").stdout
    assert "wished for" in said
    assert "accuracy of the rest" in said
    assert f"Ensemble: {runs / 'ensemble'}" in parfocal("evaluate", runs, "--ensemble").stdout
    assert (
        "Judged on"
        in parfocal("evaluate", runs / "resnet20", "--data", _write_external_data(tmp_path / "other")).stdout
    )
    said = parfocal("compare", runs, "-o", tmp_path / "two.html").stdout
    assert f"Report: {tmp_path / 'two.html'}" in said
    assert "larger than chance" in said
    assert json.loads(parfocal("compare", runs, "--format", "json").stdout)["split"] == "test"
    assert "Table: " in parfocal("compare", runs, "--format", "csv", "-o", tmp_path / "two.csv").stdout
    assert set(pd.read_csv(tmp_path / "two.csv")["run"]) == {"plain20", "resnet20"}
    out = tmp_path / "cells.csv"
    listed = "".join(f"{path}\n" for path in sorted((smears / "new_dataset" / "test").iterdir()))
    said = parfocal("predict", runs / "resnet20", runs / "plain20", "-", "-o", out, stdin=listed).stdout
    assert "6 images predicted by the mean of resnet20, plain20" in said
    done = parfocal("predict", runs / "resnet20", smears / "resnet_18_test.csv", "-o", out)
    assert "6 images predicted" in done.stdout
    assert len(pd.read_csv(out)) == 6


def test_recipes_are_listed_in_two_groups() -> None:
    listed = parfocal("recipes").stdout
    documents, ours = listed.split("Ours")
    assert documents.startswith("The documents' experiments")
    for name in ("leukemia-adam", "leukemia-sgd", "fundus", "fundus-head-224", "fundus-cifar10", "fundus-nonzero"):
        assert f"\n{name} " in documents
    for name in ("auto", "demo", "leukemia", "retinopathy"):
        assert f"\n{name} " in ours


def test_a_recipe_is_explained() -> None:
    shown = parfocal("recipes", "fundus-cifar10").stdout
    assert "From: the fundus report at 512 pixels." in shown
    assert "parfocal train cifar10 --recipe cifar10 --out runs/cifar10" in shown
    assert "parfocal train DATA --recipe fundus-cifar10 experiment=start" in shown
    assert "78.48 %" in shown
    assert "chosen: the document does not say" in shown
    assert "random weights" in parfocal("recipes", "fundus").stdout
    assert "parfocal plan DATA" in parfocal("recipes", "auto").stdout


def test_a_recipe_is_written_to_be_changed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    assert f"Written: {mine}" in parfocal("recipes", "leukemia-sgd", "-o", mine).stdout
    assert load_recipe(mine, model="resnet50") == load_recipe("leukemia-sgd", name="mine", model="resnet50")
    assert "Say which recipe" in expect_error(parfocal("recipes", "-o", mine), 2)
    assert "Did you mean 'leukemia'" in expect_error(parfocal("recipes", "leukaemia"), 2)


def test_a_plan_is_shown_and_written(cells: Path, tmp_path: Path) -> None:
    done = parfocal("plan", cells, "epochs=2", "-o", tmp_path / "mine.yaml")
    assert "Planned for 48 images" in done.stdout
    assert "you said so" in done.stdout
    assert load_recipe(tmp_path / "mine.yaml").training.epochs == 2


def test_an_experiment_is_one_command_that_ends_in_one_comparison(cells: Path, tmp_path: Path) -> None:
    first, file = tmp_path / "first", tmp_path / "small.yaml"
    assert parfocal("train", cells, *QUICK_RECIPE, "model=resnet20,plain20", "--out", first).returncode == 0
    content = {
        "images": {"size": 32},
        "views": {"crop_size": 32},
        "training": {"epochs": 1, "batch_size": 8, "precision": "float32"},
        "experiments": {"starts": {"model": ["resnet20", "plain20"], "init": ["scratch", str(first)]}},
    }
    file.write_text(yaml.safe_dump(content))
    done = parfocal("train", cells, "--recipe", file, "experiment=starts", "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/metrics.json"))
    assert len(runs) == 4
    assert (tmp_path / "runs" / "report.html").is_file()
    shown = [line for line in done.stdout.splitlines() if not line.startswith("Warning")]
    table = [line for line in shown[1 : shown.index("")] if not line.startswith("Too few")]
    names = list(dict.fromkeys(line.split()[0] for line in table))
    assert sorted(names) == runs
    assert any(line.startswith("difference") for line in shown)
    compared = parfocal("compare", *(tmp_path / "runs" / name for name in names)).stdout.splitlines()
    assert shown == compared


def test_what_the_document_reports_stands_in_the_comparison(cells: Path, tmp_path: Path) -> None:
    words = ["experiment=depth", "model=resnet18,resnet20", "size=32", "crop_size=32", "epochs=1", "precision=float32"]
    done = parfocal("train", cells, "--recipe", "leukemia-adam", *words, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("Warning", "Report", "Too few"))]
    lines = lines[: lines.index("")]
    heading, *rows = (line for line in lines if "optimistic" not in line)
    end = heading.index("reported") + len("reported")
    figures = {(row.split()[0], row.split()[2]): row[:end].split()[-1] for row in rows}
    assert figures[("resnet18", "test")] == "0.931"
    assert {figures[("resnet18", "valid")], figures[("resnet20", "test")]} == {"–"}


def _write_external_data(folder: Path) -> Path:
    dice = np.random.default_rng(1)
    for number in range(8):
        name = ("normal", "blast")[number % 2]
        write_image(folder / name / f"{number}.png", draw_cell(dice, number % 2, 48))
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "x", "--looks", "five"], "With --data nothing is chosen"),
        (["--map", "a=b"], "--map says whose class is which in --data"),
        (["--ensemble", "--looks", "five"], "evaluate them with --looks first"),
        (["-o", "all"], "-o names the folder of an ensemble"),
        (["--data", "x", "-o", "all"], "-o names the folder of an ensemble"),
    ],
)
def test_options_of_evaluate_that_do_not_go_together_are_told(words: list[str], said: str) -> None:
    assert said in expect_error(parfocal("evaluate", "runs", *words), 2)


def test_bench_shows_what_it_measured_and_says_what_holds_training_up(cells: Path, tmp_path: Path) -> None:
    done = parfocal("bench", cells, *QUICK_RECIPE, "--seconds", "0.5", "-o", tmp_path / "speed.json")
    assert done.returncode == 0, done.stderr
    for word in ("loading alone", "step alone", "both together", "waiting for batches", "matrices in bf16"):
        assert word in done.stdout
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["text"] in done.stdout
    assert all(f"- {change}" in done.stdout for change in found["changes"])
    assert found["figures"]["step"] > 0
    assert found["recipe"]["network"]["model"] == "resnet20"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["epohcs=3"], "Did you mean 'epochs'?"),
        (["optimizer=sdg"], "Did you mean 'sgd'?"),
        (["model=resnet81"], "There is no network 'resnet81'. Did you mean 'resnet18'?"),
        (["--recipe", "leukaemia"], "Did you mean 'leukemia'?"),
        (["--recipe", "fundus", "experiment=pretrainig"], "Did you mean 'pretraining'?"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_nearest(
    cells: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    assert said in expect_error(parfocal("train", cells, *words, "--out", tmp_path / "runs"), 2)


def test_a_wrong_recipe_is_told_before_what_takes_seconds_to_import(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "parfocal.training.train", None)
    assert "Did you mean 'epochs'?" in expect_error(parfocal("train", cells, "epohcs=3"), 2)


def _damage(cells: Path, fault: str) -> None:
    images, train = cells / "new_dataset" / "train", cells / "train.csv"
    if fault == "corrupt image":
        (images / "3.bmp").write_bytes((images / "3.bmp").read_bytes()[:300])
    elif fault == "missing file":
        (images / "3.bmp").unlink()
    elif fault == "wrong column":
        train.write_text(train.read_text().replace("Path,label", "Path,class"))
    elif fault == "bad label":
        train.write_text(train.read_text().replace("3.bmp,1", "3.bmp,perhaps"))
    elif fault == "empty split":
        (cells / "valid.csv").write_text("Path,label\n")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("corrupt image", "train/3.bmp (truncated). Replace the files"),
        ("missing file", "1 of 76 images are missing"),
        ("wrong column", "train.csv has no column 'label'; it has 'Path', 'class'"),
        ("bad label", "train.csv, line 5: the label is 'perhaps'. Valid labels are 0 (normal), 1 (blast)."),
        ("empty split", "valid.csv has no rows below its header"),
    ],
)
def test_faulty_data_is_one_message_and_leaves_nothing(cells: Path, tmp_path: Path, fault: str, said: str) -> None:
    _damage(cells, fault)
    assert said in expect_error(parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs"), 1)
    assert not (tmp_path / "runs").exists()


def _unwritable_folder(tmp_path: Path) -> Path:
    """A folder without permission; where the tests' user may write everywhere, a file in the folder's place."""
    place = tmp_path / "locked"
    if os.geteuid() == 0:
        place.write_text("")
    else:
        place.mkdir(mode=0o500)
    return place / "runs"


def test_an_unwritable_folder_is_one_message(cells: Path, tmp_path: Path) -> None:
    out = _unwritable_folder(tmp_path)
    assert f"Cannot write {out}" in expect_error(parfocal("train", cells, *QUICK_RECIPE, "--out", out), 1)
    out = out.with_suffix(".html")
    assert "Cannot write" in expect_error(parfocal("synthesise", "smear", out, "--images", "40"), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit stands in for a full disk on Linux")
@pytest.mark.parametrize("room", [100, 20_000, 600_000])
def test_a_disk_that_fills_up_while_training_is_one_message(
    draw: Callable[..., Path], tmp_path: Path, room: int
) -> None:
    cells = draw(tmp_path / "cells", train=16, valid=8, test=4)
    assert parfocal("prepare", cells, *QUICK_RECIPE).returncode == 0

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    done = parfocal_subprocess("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs", preexec_fn=fill)
    assert "Cannot write" in expect_error(done, 1)
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert [path.name for path in left if ".part" in path.name] == []
    assert not any(path.stat().st_size == 0 for path in left)
    done = parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs", "--resume")
    assert done.returncode == 0, done.stderr


def test_predicting_with_a_bad_image_lists_it_and_exits_with_1(cells: Path, tmp_path: Path) -> None:
    assert parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs").returncode == 0
    (tmp_path / "bad.png").write_text("no image")
    good = cells / "new_dataset" / "test" / "0.bmp"
    done = parfocal("predict", tmp_path / "runs" / "resnet20", good, tmp_path / "bad.png", "-o", tmp_path / "out.csv")
    assert done.returncode == 1
    assert "1 images predicted" in done.stdout
    assert done.stderr.strip() == f"Not read: {tmp_path / 'bad.png'}: text, not an image"


def test_explaining_prints_peaks_and_places_and_lists_what_it_cannot_read(cells: Path, tmp_path: Path) -> None:
    assert parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs").returncode == 0
    run, out = tmp_path / "runs" / "resnet20", tmp_path / "where"
    for number in range(12):
        write_image(cells / "masks" / "test" / f"{number}.png", np.eye(48, dtype=np.uint8))
    done = parfocal("explain", run, "test", "-o", out, "--each", "2", "--method", "gradcam", "--stage", "stage2")
    assert done.returncode == 0, done.stderr
    assert [one in done.stdout for one in ("map of", "peak hits", "at random", "any part")] == [True] * 4
    assert f"Sheet: {out / 'sheet.png'}" in done.stdout
    assert (out / "sheet.png").is_file()
    assert json.loads((out / "explained.json").read_text())["stage"] == "stage2"
    done = parfocal("explain", run, "valid", "-o", out, "--id", "./new_dataset/valid/3.bmp")
    assert set(pd.read_csv(out / "figures.csv")["id"]) == {"./new_dataset/valid/3.bmp"}
    (tmp_path / "bad.png").write_text("no image")
    done = parfocal("explain", run, cells / "resnet_18_test.csv", tmp_path / "bad.png", "-o", out)
    assert done.returncode == 1
    assert done.stderr.strip() == f"Not read: {tmp_path / 'bad.png'}: text, not an image"
    assert len(set(pd.read_csv(out / "figures.csv")["id"])) == 12
    assert "Name a split (valid, test) or images" in expect_error(parfocal("explain", run), 2)
    assert "Did you mean 'valid'" in expect_error(parfocal("explain", run, "vaild", "-o", out), 2)


def test_a_border_that_decides_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    from parfocal.commands.explain import _print_border_swap
    from parfocal.explainability.explain import Explanation
    from parfocal.explainability.localization import BorderSwapResult, MapLocalization

    lying = {
        "bad": MapLocalization(BorderSwapResult(40, 0.3, 0.3, 0.1, 0.1, 0.4, 0.1), {}),
        "few": MapLocalization(None, {}),
    }
    _print_border_swap(Explanation(Path(), (), pd.DataFrame(), 1.0, lying, {}))
    said = capsys.readouterr().out
    assert "Warning: bad: 40% of the answers change when the border is that of another image" in said
    assert "few" not in said
