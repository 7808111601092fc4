"""Synthetic data sets: the files of the laboratories, no patient in two splits, the same with any number of threads."""

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
from parfocal.recipe_schema import ImagesConfig
from parfocal.synthetic.dataset import GRADE_SHARES, _make_eyes, synthesize, synthesize_fundus, synthesize_smear
from parfocal.synthetic.smears import draw_signals


@pytest.fixture(scope="module")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_smear(tmp_path_factory.mktemp("synthetic") / "smears", 80)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_fundus(tmp_path_factory.mktemp("synthetic") / "eyes", 60, size=256)


def _read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    assert image is not None
    return image


def _compute_digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_smears_have_the_format_of_the_leukemia_lab(smears: Path) -> None:
    for name in ("train", "valid", "test_truth"):
        rows = pd.read_csv(smears / f"{name}.csv")
        assert list(rows.columns) == ["Path", "label"]
        assert set(rows["label"]) == {0, 1}
    for network in (18, 50, 152):
        assert list(pd.read_csv(smears / f"resnet_{network}_test.csv").columns) == ["Path"]
    assert pd.read_csv(smears / "train.csv")["Path"].iloc[0] == "./new_dataset/train/0.bmp"
    image = _read_image(smears / "new_dataset" / "train" / "0.bmp")
    assert image.shape == (450, 450, 3)
    assert image[0].max() == 0
    assert image[200:250, 200:250].max() > 60


def test_smears_have_no_errors_and_no_patient_is_in_two_splits(smears: Path) -> None:
    table = read(smears)
    findings = check(table, ImagesConfig(size=64))
    assert [finding.message for finding in findings if finding.severity == "error"] == []
    assert table.rows.groupby("group")["split"].nunique().max() == 1
    assert table.rows["group"].nunique() < len(table) / 2


def test_masks_of_the_test_cells_show_a_dark_nucleus_in_the_cytoplasm(smears: Path) -> None:
    mask = _read_image(smears / "masks" / "test" / "0.png", cv2.IMREAD_UNCHANGED)
    image = _read_image(smears / "new_dataset" / "test" / "0.bmp")
    assert set(np.unique(mask)) == {0, 127, 255}
    assert image[mask == 0].max() == 0
    assert image[mask == 255].mean() < image[mask == 127].mean()


def test_the_signals_of_the_classes_overlap_by_design() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(4000) < 0.6
    signals = np.array([draw_signals(bool(label), rng) for label in labels])
    best = LogisticRegression().fit(signals[:2000], labels[:2000]).score(signals[2000:], labels[2000:])
    single = LogisticRegression().fit(signals[:2000, :1], labels[:2000]).score(signals[2000:, :1], labels[2000:])
    assert 0.95 < best < 0.985
    assert 0.78 < single < 0.90


def test_fundus_photographs_have_the_format_of_the_retinopathy_lab(eyes: Path) -> None:
    names = (eyes / "train_img.csv").read_text().split()
    grades = [int(grade) for grade in (eyes / "train_label.csv").read_text().split()]
    assert len(names) == len(grades) == 48
    assert all((eyes / "new_train" / f"{name}.jpeg").is_file() for name in names)
    assert {name.rpartition("_")[2] for name in names} == {"left", "right"}
    assert len((eyes / "test_img.csv").read_text().split()) == 12
    assert len({_read_image(eyes / "new_train" / f"{name}.jpeg").shape for name in names}) > 3
    assert _read_image(eyes / "new_train" / f"{names[0]}.jpeg")[:4, :4].max() < 12


def test_fundus_grades_have_the_frequencies_of_the_source_data() -> None:
    grades = pd.Series([eye.grade for eye in _make_eyes("train", 2000, np.arange(2000), 0)])
    shares = grades.value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(shares, np.array(GRADE_SHARES) / sum(GRADE_SHARES), atol=0.002)


def test_both_eyes_of_a_patient_are_in_the_same_split(eyes: Path) -> None:
    table = read(eyes)
    assert table.rows.groupby("group")["split"].nunique().max() == 1
    assert table.rows.groupby("group").size().median() == 2
    assert len(table.splits) == 2


def test_the_masks_show_the_lesions_of_the_grade(eyes: Path) -> None:
    table = read(eyes)
    for name, grade in zip(table.rows["id"], table.rows["label"], strict=True):
        lesions = set(np.unique(_read_image(eyes / "masks" / f"{name}.png", cv2.IMREAD_UNCHANGED))) - {0}
        assert bool(lesions) == (grade > 0)
        assert (4 in lesions) == (grade == 4)
        assert 1 in lesions or grade == 0


def test_the_number_of_threads_changes_nothing_and_the_seed_changes_everything(tmp_path: Path) -> None:
    single = synthesize_smear(tmp_path / "single", 40, seed=3, size=96, workers=1)
    threaded = synthesize_smear(tmp_path / "threaded", 40, seed=3, size=96, workers=4)
    other_seed = synthesize_smear(tmp_path / "other", 40, seed=4, size=96)
    digests = _compute_digests(single)
    assert digests == _compute_digests(threaded)
    assert digests["new_dataset/train/0.bmp"] != _compute_digests(other_seed)["new_dataset/train/0.bmp"]


def test_a_folder_that_is_not_empty_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ParfocalError, match=r"is not empty\. Choose a new folder"):
        synthesize("smear", tmp_path, 40)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_kind_and_too_few_images_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'smear'"):
        synthesize("smaer", tmp_path / "a")
    with pytest.raises(UsageError, match="n_images=3 is too few"):
        synthesize("smear", tmp_path / "a", 3)
    assert list(tmp_path.iterdir()) == []
