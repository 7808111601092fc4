"""External validation maps the classes of another data set, and rejects images that the run has seen."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import parfocal
from parfocal.commands.tables import print_external_results
from parfocal.data.layouts import read
from parfocal.data.table import UNKNOWN
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.external import evaluate_external, map_classes, parse_class_map
from parfocal.run import Run
from tests.cells import SMALL_RECIPE, draw_cell, draw_cells, write_image
from tests.commands.run_command import expect_error
from tests.commands.run_command import parfocal as run_parfocal


def _draw_folders(folder: Path, names: tuple[str, ...] = ("healthy", "blast", "smudge")) -> Path:
    """Draw cells that no run has seen, in one folder per class."""
    rng = np.random.default_rng(99)
    for number, name in enumerate(names):
        for image in range(8):
            write_image(folder / name / f"{image}.png", draw_cell(rng, number % 2, 48))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(folder / "stores"))
        parfocal.train(draw_cells(folder / "cells"), out=folder / "runs", **SMALL_RECIPE)
    return folder


def test_a_run_is_evaluated_on_the_mapped_classes_and_keeps_the_results(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    data = _draw_folders(tmp_path / "hospital")
    before = run.decision_path.read_bytes()
    metrics = evaluate_external(run, data, {"healthy": "normal", "smudge": ""})
    assert (metrics["count"], metrics["majority_accuracy"]) == (16, 0.5)
    assert metrics["confusion"] == [[8, 0], [0, 8]]
    assert metrics["intervals"]["groups"] == 16
    assert metrics["calibration"]["temperature"] != 1
    rows = pd.read_csv(run.folder / "external" / "hospital" / "predictions.csv")
    assert set(rows["truth"]) == {"normal", "blast"}
    assert (run.folder / "external" / "hospital" / "metrics.json").is_file()
    assert run.decision_path.read_bytes() == before


def test_data_of_the_same_name_and_other_class_maps_get_folders_of_their_own(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    first, second = (_draw_folders(tmp_path / parent / "site.v2", ("normal", "blast")) for parent in ("a", "b"))
    for data, class_map in ((first, {}), (first, {"normal": ""}), (second, {}), (first, {})):
        evaluate_external(run, data, class_map)
    metrics = {
        path.name: json.loads((path / "metrics.json").read_text()) for path in (run.folder / "external").glob("site*")
    }
    assert {name: (values["data"], values["count"]) for name, values in metrics.items()} == {
        "site.v2": (str(first), 16),
        "site.v2-2": (str(first), 8),
        "site.v2-3": (str(second), 16),
    }


def test_its_table_explains_missing_intervals_and_shows_the_decisions(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(trained / "runs" / "resnet20")
    data = _draw_folders(tmp_path / "clinic", ("normal", "blast"))
    parfocal.evaluate(run.folder, operating_point="specificity=0.9", refer=0.8)
    print_external_results({run.name: evaluate_external(run, data)})
    output = capsys.readouterr().out
    parfocal.evaluate(run.folder, operating_point="none", refer=0)
    assert "Too few images for confidence intervals: 16 in clinic" in output
    assert output.splitlines()[0].split() == ["run", "images", "accuracy", "majority", "balanced", "kappa", "AUC"]
    assert [f"{heading} " in output for heading in ("operating point", "referral")] == [True, True]


def test_training_images_are_rejected(trained: Path, tmp_path: Path) -> None:
    run = Run(trained / "runs" / "resnet20")
    with pytest.raises(ParfocalError, match=r"64 images of .* are training or validation images of resnet20"):
        evaluate_external(run, trained / "cells")
    data = _draw_folders(tmp_path / "copies", ("normal", "blast"))
    copied = trained / "cells" / "new_dataset" / "train" / "0.bmp"
    (data / "normal" / "copy.bmp").write_bytes(copied.read_bytes())
    with pytest.raises(ParfocalError, match="1 images of"):
        evaluate_external(run, data)


def _add_near_copies(trained: Path, data: Path, count: int) -> list[list[str]]:
    """Add JPEGs of training images to the data, and return the paths of each and of its original."""
    pairs: list[list[str]] = []
    for number in range(count):
        original = trained / "textures" / "train" / ("a" if number % 2 else "b") / f"{number}.png"
        copy = data / original.parent.name / f"copy{number}.jpg"
        pixels = cv2.imread(str(original))
        assert pixels is not None
        cv2.imwrite(str(copy), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
        pairs.append([str(copy), str(original)])
    return sorted(pairs)


def _draw_textures(folder: Path, count: int, seed: int) -> Path:
    """Draw images that all differ, as cells of the other tests do not: random textures of two brightnesses."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        texture = rng.integers(60, 120, (6, 6, 3)).astype(np.uint8) + 80 * (number % 2)
        name = f"{'a' if number % 2 else 'b'}/{number}.png"
        write_image(folder / name, cv2.resize(texture.astype(np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def textures(trained: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARFOCAL_STORES", str(trained / "stores"))
        for split, count in (("train", 24), ("valid", 8)):
            _draw_textures(trained / "textures" / split, count, count)
        recipe = {**SMALL_RECIPE, "size": 64, "crop_size": 32, "epochs": 1}
        (run,) = parfocal.train(trained / "textures", out=trained / "texture-runs", **recipe)
    return run


def test_near_copies_of_training_images_are_listed_and_counted(trained: Path, textures: Run, tmp_path: Path) -> None:
    data = _draw_textures(tmp_path / "others", 98, 99)
    pairs = _add_near_copies(trained, data, 2)
    result = run_parfocal("evaluate", textures.folder, "--data", data)
    assert result.returncode == 0, result.stderr
    text = "2 of 100 images look nearly like training or validation images of resnet20, and count in its metrics: "
    assert text + ", ".join(" ≈ ".join(pair) for pair in pairs) in " ".join(result.stdout.split())
    metrics = json.loads((textures.folder / "external" / "others" / "metrics.json").read_text())
    assert metrics["near_duplicates"] == {"count": 2, "share": 0.02, "pairs": pairs}


def test_many_near_copies_are_refused_unless_they_are_allowed(trained: Path, textures: Run, tmp_path: Path) -> None:
    data = _draw_textures(tmp_path / "mostly copies", 12, 99)
    pairs = _add_near_copies(trained, data, 4)
    message = expect_error(run_parfocal("evaluate", textures.folder, "--data", data), 1)
    assert "4 of 16 images of folders at" in message
    assert "more than 2%: " + ", ".join(" ≈ ".join(pair) for pair in pairs) in message
    assert message.endswith("Remove the copies, or accept them with --allow near_duplicates.")
    assert not (textures.folder / "external" / "mostly copies").exists()
    result = run_parfocal("evaluate", textures.folder, "--data", data, "--allow", "near_duplicates")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((textures.folder / "external" / "mostly copies" / "metrics.json").read_text())
    assert (metrics["near_duplicates"]["count"], metrics["count"]) == (4, 16)
    (data / "a" / "exact.png").write_bytes((trained / "textures" / "train" / "a" / "1.png").read_bytes())
    refused = run_parfocal("evaluate", textures.folder, "--data", data, "--allow", "near_duplicates")
    assert "1 images of folders at" in expect_error(refused, 1)


def test_what_cannot_be_allowed_is_a_usage_error(textures: Run, tmp_path: Path) -> None:
    message = expect_error(run_parfocal("evaluate", textures.folder, "--data", tmp_path, "--allow", "identical"), 2)
    assert "--allow identical is not a finding that can be allowed. Valid are: near_duplicates" in message
    assert "Pass --data too" in expect_error(run_parfocal("evaluate", textures.folder, "--allow", "near_duplicates"), 2)


def test_labels_follow_the_class_map_and_unlabeled_rows_are_dropped(tmp_path: Path) -> None:
    table = read(_draw_folders(tmp_path / "hospital"))
    table.rows.loc[0, "label"] = UNKNOWN
    mapped = map_classes(table, ("normal", "blast"), {"healthy": "normal", "smudge": "blast"})
    names = [Path(path).parent.name for path in mapped.rows["path"]]
    expected = {"healthy": 0, "blast": 1, "smudge": 1}
    assert mapped.rows["label"].tolist() == [expected[name] for name in names]
    assert len(mapped) == 23
    assert mapped.splits == ("test",)


def test_an_invalid_class_map_is_rejected(tmp_path: Path) -> None:
    table = read(_draw_folders(tmp_path / "hospital"))
    classes = ("normal", "blast")
    message = r"classes healthy, smudge of the data are not classes of the run \(normal, blast\)\. Rename them"
    with pytest.raises(UsageError, match=message):
        map_classes(table, classes, {})
    message = r"class_map healhty=normal: the data has no class 'healhty'\. Did you mean 'healthy'"
    with pytest.raises(UsageError, match=message):
        map_classes(table, classes, {"healhty": "normal"})
    with pytest.raises(UsageError, match=r"the run has no class 'norml'\. Did you mean 'normal'"):
        map_classes(table, classes, {"healthy": "norml"})
    with pytest.raises(ParfocalError, match="has no labeled images of the run's classes"):
        map_classes(table, classes, {"healthy": "", "blast": "", "smudge": ""})
    assert parse_class_map("0=no DR, 4=severe,x=") == {"0": "no DR", "4": "severe", "x": ""}
    with pytest.raises(UsageError, match=r"class_map 0 is not valid\. Write it as old=new"):
        parse_class_map("0")
