"""Synthetic sets: the labs' own files, patients on one side, drawn alike whatever the threads."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from parfocal.data.checks import check
from parfocal.data.layouts import read
from parfocal.errors import ParfocalError, UsageError
from parfocal.schema import ImagesConfig
from parfocal.synthetic.dataset import synthesize, synthesize_fundus, synthesize_smear
from parfocal.synthetic.smears import draw_signals


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_smear(tmp_path_factory.mktemp("drawn") / "smears", 80)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_fundus(tmp_path_factory.mktemp("drawn") / "eyes", 60, size=256)


def _content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_smears_are_in_the_leukemia_labs_format(smears: Path) -> None:
    for name in ("train", "valid", "test_truth"):
        rows = pd.read_csv(smears / f"{name}.csv")
        assert list(rows.columns) == ["Path", "label"]
        assert set(rows["label"]) == {0, 1}
    for network in (18, 50, 152):
        assert list(pd.read_csv(smears / f"resnet_{network}_test.csv").columns) == ["Path"]
    assert pd.read_csv(smears / "train.csv")["Path"].iloc[0] == "./new_dataset/train/0.bmp"
    image = cv2.imread(str(smears / "new_dataset" / "train" / "0.bmp"))
    assert image is not None
    assert image.shape == (450, 450, 3)
    assert image[0].max() == 0
    assert image[200:250, 200:250].max() > 60


def test_smears_pass_the_check_and_no_patient_crosses(smears: Path) -> None:
    table = read(smears)
    assert [one.message for one in check(table, ImagesConfig(size=64)) if one.severity == "error"] == []
    assert table.rows.groupby("group")["split"].nunique().max() == 1
    assert table.rows["group"].nunique() < len(table) / 2


def test_masks_of_the_test_cells_show_nucleus_within_cytoplasm(smears: Path) -> None:
    mask = cv2.imread(str(smears / "masks" / "test" / "0.png"), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(smears / "new_dataset" / "test" / "0.bmp"))
    assert mask is not None
    assert image is not None
    assert set(np.unique(mask)) == {0, 127, 255}
    assert image[mask == 0].max() == 0
    assert image[mask == 255].mean() < image[mask == 127].mean()


def test_the_class_signals_overlap_by_design() -> None:
    dice = np.random.default_rng(0)
    labels = dice.random(4000) < 0.6
    signals = np.array([draw_signals(bool(label), dice) for label in labels])
    best = LogisticRegression().fit(signals[:2000], labels[:2000]).score(signals[2000:], labels[2000:])
    single = LogisticRegression().fit(signals[:2000, :1], labels[:2000]).score(signals[2000:, :1], labels[2000:])
    assert 0.95 < best < 0.985
    assert 0.78 < single < 0.90


def test_fundus_photographs_are_in_the_retinopathy_labs_format(eyes: Path) -> None:
    names = (eyes / "train_img.csv").read_text().split()
    grades = [int(one) for one in (eyes / "train_label.csv").read_text().split()]
    assert len(names) == len(grades) == 48
    assert all((eyes / "new_train" / f"{name}.jpeg").is_file() for name in names)
    assert {name.rpartition("_")[2] for name in names} == {"left", "right"}
    assert len((eyes / "test_img.csv").read_text().split()) == 12
    shapes = {cv2.imread(str(eyes / "new_train" / f"{name}.jpeg")).shape for name in names}  # type: ignore[union-attr]
    assert len(shapes) > 3
    corner = cv2.imread(str(eyes / "new_train" / f"{names[0]}.jpeg"))
    assert corner is not None
    assert corner[:4, :4].max() < 12


def test_fundus_grades_have_the_documents_mix() -> None:
    from parfocal.synthetic.dataset import GRADE_SHARES, _make_eyes

    drawn = pd.Series([eye.grade for eye in _make_eyes("train", 2000, np.arange(2000), 0)])
    shares = drawn.value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(shares, np.array(GRADE_SHARES) / sum(GRADE_SHARES), atol=0.002)


def test_both_eyes_of_a_patient_stay_together(eyes: Path) -> None:
    table = read(eyes)
    assert table.rows.groupby("group")["split"].nunique().max() == 1
    assert table.rows.groupby("group").size().median() == 2
    assert len(table.splits) == 2


def test_lesions_are_where_the_grade_says(eyes: Path) -> None:
    table = read(eyes)
    for name, grade in zip(table.rows["id"], table.rows["label"], strict=True):
        mask = cv2.imread(str(eyes / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        found = set(np.unique(mask)) - {0}
        assert bool(found) == (grade > 0)
        assert (4 in found) == (grade == 4)
        assert 1 in found or grade == 0


def test_threads_change_nothing_and_seeds_change_all(tmp_path: Path) -> None:
    one = synthesize_smear(tmp_path / "one", 40, seed=3, size=96, workers=1)
    two = synthesize_smear(tmp_path / "two", 40, seed=3, size=96, workers=4)
    other = synthesize_smear(tmp_path / "other", 40, seed=4, size=96)
    assert _content(one) == _content(two)
    assert _content(one)["new_dataset/train/0.bmp"] != _content(other)["new_dataset/train/0.bmp"]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ParfocalError, match=r"is not empty\. Choose a new folder"):
        synthesize("smear", tmp_path, 40)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_kind_and_too_few_images_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'smear'"):
        synthesize("smaer", tmp_path / "a")
    with pytest.raises(UsageError, match="images=3 is too few"):
        synthesize("smear", tmp_path / "a", 3)
    assert list(tmp_path.iterdir()) == []
