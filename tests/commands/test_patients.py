"""`check` and `train` say first which images belong together, and warn where no patient is known."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.run import Run
from tests.cells import SMALL_RECIPE, draw_cell, write_image
from tests.commands.run_command import parfocal

QUICK_RECIPE = [f"{key}={value}" for key, value in {**SMALL_RECIPE, "epochs": 1}.items()]
N_IMAGES = 60


def _write_images(folder: Path, **columns: list[str]) -> Path:
    """Write drawn cells named after 15 patients, and a sheet of them."""
    rng = np.random.default_rng(3)
    names = [f"P{row // 4:02d}_{row:03d}.png" for row in range(N_IMAGES)]
    for row, name in enumerate(names):
        write_image(folder / name, draw_cell(rng, row % 2, 40))
    pd.DataFrame({"path": names, "label": [row % 2 for row in range(N_IMAGES)], **columns}).to_csv(
        folder / "labels.csv", index=False
    )
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data set without a column of patients."""
    return _write_images(tmp_path / "images")


def test_check_warns_of_unknown_patients_with_the_key_to_accept(images: Path) -> None:
    result = parfocal("check", images)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("60 rows from columns of ")
    assert lines[1] == "Groups: each image by itself (no patient is known)."
    output = " ".join(result.stdout.split())
    assert "warning no_patients" in output
    assert 'Set columns.group_from="{patient}_{image}" if' in output
    assert "split.by=image" in output
    assert "patients are" not in output


def test_check_accepts_the_proposed_pattern_and_a_split_by_image(images: Path) -> None:
    result = parfocal("check", images, "columns.group_from={patient}_{image}")
    assert "Groups: 15 patients (columns.group_from={patient}_{image})." in result.stdout.splitlines()
    assert "no_patients" not in result.stdout
    result = parfocal("check", images, "split.by=image")
    assert result.stdout.splitlines()[1] == "Groups: each image by itself (split.by=image)."
    assert "warning  no_patients" not in result.stdout


def test_check_says_which_column_it_takes(tmp_path: Path) -> None:
    folder = _write_images(tmp_path / "images", PatientID=[f"K{row // 4}" for row in range(N_IMAGES)])
    assert "Groups: 15 patients (column 'PatientID')." in parfocal("check", folder).stdout.splitlines()


def test_train_says_what_the_groups_are_before_it_trains(images: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    result = parfocal("train", images, *QUICK_RECIPE, "--out", runs)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("60 rows from columns of ")
    assert lines[1] == "Groups: each image by itself (no patient is known)."
    warning = result.stderr.splitlines()[0]
    assert warning.startswith("Warning: No patient is known. Each of the 60 images is split by itself")
    assert 'columns.group_from="{patient}_{image}"' in warning
    run = Run(runs / "resnet20")
    assert run.groups_are == "images"
    assert "no_patients" in [finding["code"] for finding in run.read_environment()["data"]["findings"]]
    result = parfocal("train", images, *QUICK_RECIPE, "group_from={patient}_{image}", "--out", tmp_path / "grouped")
    assert result.stdout.splitlines()[1] == "Groups: 15 patients (columns.group_from={patient}_{image})."
    assert "No patient is known" not in result.stderr
    assert Run(tmp_path / "grouped" / "resnet20").groups_are == "patients"


def test_no_output_of_a_run_calls_images_patients(images: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    outputs = [
        parfocal("train", images, *QUICK_RECIPE, "split.test=0.2", "model=resnet20,plain20", "--out", runs).stdout,
        parfocal("evaluate", runs, "--operating-point", "sensitivity=0.9", "--refer", "0.9").stdout,
        parfocal("compare", runs, "--format", "lab", "-o", tmp_path / "lab.md").stdout,
        parfocal("export", runs / "resnet20", "--to", "safetensors").stdout,
        (tmp_path / "lab.md").read_text(),
        (runs / "report.html").read_text(),
        (runs / "resnet20" / "metrics.json").read_text(),
        *(path.read_text() for path in (runs / "resnet20" / "export").glob("*.md")),
    ]
    assert all(outputs)
    assert len(outputs) == 8
    text = re.sub(r"\s+", " ", re.sub(r'"data:image/[^"]*"', "", " ".join(outputs)))
    # Sentences on patients without claiming that they are known.
    for sentence in (
        r"no patient is known\b",
        r"No patient is known\. .{0,250}? too optimistic\.( Set .{0,200}? accept this with split\.by=image)?",
        r"split\.by</th><td>patient<",
        r"it must not decide about a patient",
        r"cameras, stains, clinics and patients",
        r"Images were split one by one: images of one patient may be in different splits",
    ):
        text = re.sub(sentence, "", text)
    found = [
        text[max(0, match.start() - 80) : match.end() + 60] for match in re.finditer("patient", text, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)
