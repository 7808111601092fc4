"""The command line: help, output, exit codes, and one message for every mistake."""

import json
import os
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
from tests.full_disk import limit_file_size

COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
QUICK_RECIPE = [f"{key}={value}" for key, value in {**SMALL_RECIPE, "epochs": 1}.items()]


def test_the_commands_are_complete() -> None:
    assert COMMANDS == [
        "demo", "synthesize", "check", "plan", "prepare", "train", "evaluate", "compare", "predict", "explain",
        "export", "serve", "bench", "recipes",
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = parfocal(command, "--help")
    assert result.returncode == 0
    assert f"Example: parfocal {command}" in " ".join(result.stdout.split())


def test_version_and_help_are_printed() -> None:
    from parfocal import __version__

    assert parfocal_subprocess("--version").stdout.strip() == f"parfocal {__version__}"
    assert "train" in parfocal("-h").stdout


@pytest.mark.usefixtures("blank_figures")
def test_from_synthetic_images_to_a_report(tmp_path: Path) -> None:
    smears, runs = tmp_path / "smears", tmp_path / "runs"
    assert "Data set:" in parfocal("synthesize", "smear", smears, "--images", "60").stdout
    assert "Ready to train." in parfocal("check", smears, "-o", tmp_path / "findings.json").stdout
    assert (tmp_path / "findings.json").is_file()
    assert "Findings:" in parfocal("check", smears, "-o", tmp_path / "page.html").stdout
    assert (tmp_path / "page.html").is_file()
    assert (tmp_path / "page.json").is_file()
    assert "60 images of 40×40" in parfocal("prepare", smears, *QUICK_RECIPE).stdout
    result = parfocal("train", smears, *QUICK_RECIPE, "model=resnet20,plain20", "--out", runs)
    assert result.returncode == 0, result.stderr
    assert "majority" in result.stdout
    assert (runs / "report.html").is_file()
    assert (runs / "resnet20" / "report.html").is_file()
    lines = parfocal("evaluate", runs).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["plain20", "plain20", "resnet20", "resnet20"]
    assert "too few" in lines[5].lower()
    output = parfocal("evaluate", runs / "resnet20", "--operating-point", "sensitivity=0.9", "--refer", "0.5").stdout
    assert "Fitted on the validation images by resnet20: " in output
    assert "goal" in output
    assert "selective accuracy" in output
    assert f"Ensemble: {runs / 'ensemble'}" in parfocal("evaluate", runs, "--ensemble").stdout
    external_data = _write_external_data(tmp_path / "other")
    assert "Evaluated on" in parfocal("evaluate", runs / "resnet20", "--data", external_data).stdout
    output = parfocal("compare", runs, "-o", tmp_path / "two.html").stdout
    assert f"Report: {tmp_path / 'two.html'}" in output
    assert "not tested (fewer than 40 patients)" in output
    assert json.loads(parfocal("compare", runs, "--format", "json").stdout)["split"] == "test"
    assert "Table: " in parfocal("compare", runs, "--format", "csv", "-o", tmp_path / "two.csv").stdout
    assert set(pd.read_csv(tmp_path / "two.csv")["run"]) == {"plain20", "resnet20"}
    out = tmp_path / "cells.csv"
    paths = "".join(f"{path}\n" for path in sorted((smears / "new_dataset" / "test").iterdir()))
    output = parfocal("predict", runs / "resnet20", runs / "plain20", "-", "-o", out, stdin=paths).stdout
    assert "6 images predicted with the mean of resnet20, plain20" in output
    result = parfocal("predict", runs / "resnet20", smears / "resnet_18_test.csv", "-o", out)
    assert "6 images predicted" in result.stdout
    assert len(pd.read_csv(out)) == 6


def test_recipes_are_listed_in_two_groups() -> None:
    documented, ours = parfocal("recipes").stdout.split("Parfocal's own recipes")
    assert documented.startswith("Experiments of the source documents")
    for name in ("leukemia-adam", "leukemia-sgd", "fundus", "fundus-head-224", "fundus-cifar10", "fundus-nonzero"):
        assert f"\n{name} " in documented
    for name in ("auto", "demo", "leukemia", "retinopathy"):
        assert f"\n{name} " in ours


def test_a_recipe_is_explained() -> None:
    output = parfocal("recipes", "fundus-cifar10").stdout
    assert "Source: the fundus report at 512 pixels." in output
    assert "parfocal train cifar10 --recipe cifar10 --out runs/cifar10" in output
    assert "parfocal train DATA --recipe fundus-cifar10 experiment=start" in output
    assert "78.48 %" in output
    assert "assumption: not stated" in output
    assert "The document uses pretrained weights, but does not state which" in parfocal("recipes", "fundus").stdout
    assert "parfocal plan DATA" in parfocal("recipes", "auto").stdout


def test_a_recipe_is_written_to_be_edited(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    assert f"Recipe: {mine}" in parfocal("recipes", "leukemia-sgd", "-o", mine).stdout
    assert load_recipe(mine, model="resnet50") == load_recipe("leukemia-sgd", name="mine", model="resnet50")
    assert "Choose the recipe to write" in expect_error(parfocal("recipes", "-o", mine), 2)
    assert "Did you mean 'leukemia'" in expect_error(parfocal("recipes", "leukaemia"), 2)


def test_a_plan_is_printed_and_written(cells: Path, tmp_path: Path) -> None:
    result = parfocal("plan", cells, "epochs=2", "-o", tmp_path / "mine.yaml")
    assert "Planned for 48 training images" in result.stdout
    assert "set by you" in result.stdout
    assert load_recipe(tmp_path / "mine.yaml").training.epochs == 2


@pytest.mark.usefixtures("blank_figures")
def test_an_experiment_is_one_command_that_ends_with_a_comparison(draw: Callable[..., Path], tmp_path: Path) -> None:
    cells = draw(tmp_path / "cells", train=16, valid=8, test=4)
    first, file = tmp_path / "first", tmp_path / "small.yaml"
    assert parfocal("train", cells, *QUICK_RECIPE, "model=resnet20,plain20", "--out", first).returncode == 0
    content = {
        "images": {"size": 32},
        "views": {"crop_size": 32},
        "training": {"epochs": 1, "batch_size": 8, "precision": "float32"},
        "experiments": {"starts": {"model": ["resnet20", "plain20"], "init": ["scratch", str(first)]}},
    }
    file.write_text(yaml.safe_dump(content))
    result = parfocal("train", cells, "--recipe", file, "experiment=starts", "--out", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    runs = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/metrics.json"))
    assert len(runs) == 4
    assert (tmp_path / "runs" / "report.html").is_file()
    lines = [line for line in _skip_data_lines(result.stdout) if not line.startswith("Warning")]
    table = [line for line in lines[1 : lines.index("")] if not line.startswith("Too few")]
    names = list(dict.fromkeys(line.split()[0] for line in table))
    assert sorted(names) == runs
    assert any(line.startswith("difference") for line in lines)
    compared = parfocal("compare", *(tmp_path / "runs" / name for name in names)).stdout.splitlines()
    assert lines == compared


@pytest.mark.usefixtures("blank_figures")
def test_the_results_show_what_the_source_document_reports(cells: Path, tmp_path: Path) -> None:
    changes = [
        "experiment=depth",
        "model=resnet18,resnet20",
        "size=32",
        "crop_size=32",
        "epochs=1",
        "precision=float32",
    ]
    result = parfocal("train", cells, "--recipe", "leukemia-adam", *changes, "--out", tmp_path / "runs")
    assert result.returncode == 0, result.stderr
    lines = [line for line in _skip_data_lines(result.stdout) if not line.startswith(("Warning", "Report", "Too few"))]
    lines = lines[: lines.index("")]
    heading, *rows = (line for line in lines if "optimistic" not in line)
    end = heading.index("reported") + len("reported")
    reported = {(row.split()[0], row.split()[2]): row[:end].split()[-1] for row in rows}
    assert reported[("resnet18", "test")] == "0.931"
    assert {reported[("resnet18", "valid")], reported[("resnet20", "test")]} == {"–"}


def _skip_data_lines(output: str) -> list[str]:
    """Return the lines of the output of `train` after those that say what was read, and what its groups are."""
    rows, groups, *lines = output.splitlines()
    assert " rows from " in rows
    assert groups.startswith("Groups: ")
    return lines


def _write_external_data(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    for number in range(8):
        name = ("normal", "blast")[number % 2]
        write_image(folder / name / f"{number}.png", draw_cell(rng, number % 2, 48))
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x", "--tta", "five_crop"], "--data evaluates a run with its own TTA"),
        (["--class-map", "a=b"], "--class-map renames the classes of --data"),
        (["--ensemble", "--tta", "five_crop"], "Run `parfocal evaluate RUN --tta …` first"),
        (["-o", "all"], "-o is the folder of an ensemble"),
        (["--data", "x", "-o", "all"], "-o is the folder of an ensemble"),
    ],
)
def test_evaluate_rejects_options_that_exclude_each_other(arguments: list[str], message: str) -> None:
    assert message in expect_error(parfocal("evaluate", "runs", *arguments), 2)


def test_bench_prints_its_measurements_and_what_limits_the_speed(cells: Path, tmp_path: Path) -> None:
    result = parfocal("bench", cells, *QUICK_RECIPE, "--seconds", "0.5", "-o", tmp_path / "speed.json")
    assert result.returncode == 0, result.stderr
    for name in ("loading alone", "step alone", "both together", "waiting for batches", "matrix multiplication, bf16"):
        assert name in result.stdout
    diagnosis = json.loads((tmp_path / "speed.json").read_text())
    assert diagnosis["message"] in result.stdout
    assert all(f"- {suggestion}" in result.stdout for suggestion in diagnosis["suggestions"])
    assert diagnosis["measurements"]["step_rate"] > 0
    assert diagnosis["recipe"]["network"]["model"] == "resnet20"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["epohcs=3"], "Did you mean 'epochs'?"),
        (["optimizer=sdg"], "Did you mean 'sgd'?"),
        (["model=resnet81"], "There is no network 'resnet81'. Did you mean 'resnet18'?"),
        (["--recipe", "leukaemia"], "Did you mean 'leukemia'?"),
        (["--recipe", "fundus", "experiment=pretrainig"], "Did you mean 'pretraining'?"),
    ],
)
def test_wrong_usage_exits_with_2_and_suggests_the_nearest_name(
    cells: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in expect_error(parfocal("train", cells, *arguments, "--out", tmp_path / "runs"), 2)


def test_a_wrong_recipe_is_reported_before_the_slow_imports(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    ("fault", "message"),
    [
        ("corrupt image", "train/3.bmp (truncated). Replace the files"),
        ("missing file", "1 of 76 images are missing"),
        ("wrong column", "train.csv has no column 'label'; it has 'Path', 'class'"),
        ("bad label", "train.csv, line 5: the label is 'perhaps'. Valid labels are 0 (normal), 1 (blast)."),
        ("empty split", "valid.csv has no rows below its header"),
    ],
)
def test_faulty_data_ends_in_one_message_and_leaves_no_files(
    cells: Path, tmp_path: Path, fault: str, message: str
) -> None:
    _damage(cells, fault)
    assert message in expect_error(parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs"), 1)
    assert not (tmp_path / "runs").exists()


def _unwritable_folder(tmp_path: Path) -> Path:
    """Return a folder below one without permission; for root, who may write everywhere, below a file."""
    parent = tmp_path / "locked"
    if os.geteuid() == 0:
        parent.write_text("")
    else:
        parent.mkdir(mode=0o500)
    return parent / "runs"


def test_an_unwritable_folder_ends_in_one_message(cells: Path, tmp_path: Path) -> None:
    out = _unwritable_folder(tmp_path)
    assert f"Cannot write {out}" in expect_error(parfocal("train", cells, *QUICK_RECIPE, "--out", out), 1)
    out = out.with_suffix(".html")
    assert "Cannot write" in expect_error(parfocal("synthesize", "smear", out, "--images", "40"), 1)


@pytest.mark.skipif(sys.platform != "linux", reason="the file size limit simulates a full disk on Linux")
@pytest.mark.parametrize("max_bytes", [100, 20_000, 600_000])
@pytest.mark.usefixtures("blank_figures")
def test_a_full_disk_during_training_ends_in_one_message(
    draw: Callable[..., Path], tmp_path: Path, max_bytes: int
) -> None:
    cells = draw(tmp_path / "cells", train=16, valid=8, test=4)
    assert parfocal("prepare", cells, *QUICK_RECIPE).returncode == 0

    with limit_file_size(max_bytes):
        result = parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs")
    assert "Cannot write" in expect_error(result, 1)
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert [path.name for path in left if ".part" in path.name] == []
    # A lock is an empty file.
    assert not any(path.stat().st_size == 0 for path in left if not path.name.endswith("lock"))
    result = parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs", "--resume")
    assert result.returncode == 0, result.stderr


@pytest.mark.usefixtures("blank_figures")
def test_predict_lists_an_unreadable_image_and_exits_with_1(cells: Path, tmp_path: Path) -> None:
    assert parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs").returncode == 0
    (tmp_path / "bad.png").write_text("no image")
    good = cells / "new_dataset" / "test" / "0.bmp"
    result = parfocal("predict", tmp_path / "runs" / "resnet20", good, tmp_path / "bad.png", "-o", tmp_path / "out.csv")
    assert result.returncode == 1
    assert "1 images predicted" in result.stdout
    assert result.stderr.strip() == f"Not read: {tmp_path / 'bad.png'}: text, not an image"


@pytest.mark.usefixtures("blank_figures")
def test_explain_prints_peaks_and_overlaps_and_lists_unreadable_images(cells: Path, tmp_path: Path) -> None:
    assert parfocal("train", cells, *QUICK_RECIPE, "--out", tmp_path / "runs").returncode == 0
    run, out = tmp_path / "runs" / "resnet20", tmp_path / "heatmaps"
    for number in range(12):
        write_image(cells / "masks" / "test" / f"{number}.png", np.eye(48, dtype=np.uint8))
    result = parfocal("explain", run, "test", "-o", out, "--per-kind", "2", "--method", "gradcam", "--stage", "stage2")
    assert result.returncode == 0, result.stderr
    assert all(text in result.stdout for text in ("map of", "peak in mask", "if random", "any region"))
    assert f"Sheet: {out / 'sheet.png'}" in result.stdout
    assert (out / "sheet.png").is_file()
    assert json.loads((out / "explanation.json").read_text())["stage"] == "stage2"
    result = parfocal("explain", run, "valid", "-o", out, "--id", "./new_dataset/valid/3.bmp")
    assert set(pd.read_csv(out / "heatmaps.csv")["id"]) == {"./new_dataset/valid/3.bmp"}
    (tmp_path / "bad.png").write_text("no image")
    result = parfocal("explain", run, cells / "resnet_18_test.csv", tmp_path / "bad.png", "-o", out)
    assert result.returncode == 1
    assert result.stderr.strip() == f"Not read: {tmp_path / 'bad.png'}: text, not an image"
    assert len(set(pd.read_csv(out / "heatmaps.csv")["id"])) == 12
    assert "List a split (valid, test) or images" in expect_error(parfocal("explain", run), 2)
    assert "Did you mean 'valid'" in expect_error(parfocal("explain", run, "vaild", "-o", out), 2)


def test_a_warning_is_printed_if_the_border_decides(capsys: pytest.CaptureFixture[str]) -> None:
    from parfocal.commands.explain import _print_border_swap
    from parfocal.explainability.explain import Explanation
    from parfocal.explainability.localization import BorderSwapResult, MapLocalization

    localization = {
        "bad": MapLocalization(BorderSwapResult(40, 0.3, 0.3, 0.1, 0.1, 0.4, 0.1), {}),
        "few": MapLocalization(None, {}),
    }
    _print_border_swap(Explanation(Path(), (), pd.DataFrame(), {"resnet20": 1.0}, localization, {}))
    output = capsys.readouterr().out
    assert "Warning: bad: 40% of the predictions change when the border is replaced by that of another image" in output
    assert "few" not in output
