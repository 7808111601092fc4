"""The fingerprint of data and device: counts, appearance and grades."""

from pathlib import Path

import numpy as np
import pytest

from parfocal.data.layouts import read
from parfocal.data.split import split_table
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.recipe import load_recipe
from parfocal.recipe_schema import SplitConfig
from parfocal.synthetic.dataset import synthesize_fundus
from parfocal.training.fingerprint import Fingerprint, compute_fingerprint
from tests.cells import write_image


def _fingerprint(source: Path, **changes: object) -> Fingerprint:
    return compute_fingerprint(split_table(read(source, load_recipe(None, **changes)), SplitConfig(), 0))


def _write_noise_images(
    folder: Path, classes: tuple[str, ...], n_per_class: int = 12, shape: tuple[int, int] = (60, 80)
) -> Path:
    """Write a folder of bright noise for each class."""
    rng = np.random.default_rng(3)
    for name in classes:
        for index in range(n_per_class):
            write_image(folder / name / f"{index}.png", rng.integers(60, 255, (*shape, 3)).astype(np.uint8))
    return folder


def test_cells_on_black_are_recognized_with_the_extent_of_their_content(cells: Path) -> None:
    fingerprint = _fingerprint(cells)
    assert fingerprint.class_counts == (24, 24)
    assert fingerprint.n_groups == 24
    assert (fingerprint.width, fingerprint.height, fingerprint.short_side) == (48, 48, 48)
    assert fingerprint.appearance == "cell"
    assert 0.6 < fingerprint.content_extent < 0.9
    assert fingerprint.rotation_reason
    assert not fingerprint.ordinal_reason
    assert fingerprint.describe().startswith("48 training images of 24 patients, 48×48, cells on black; 2 classes")


def test_fundus_photographs_are_recognized_as_discs_with_grades(tmp_path: Path) -> None:
    fingerprint = _fingerprint(synthesize_fundus(tmp_path / "eyes", 30, size=160))
    assert fingerprint.appearance == "disc"
    assert fingerprint.content_extent == 1
    assert fingerprint.ordinal_reason == "the class names are grades, from no dr to proliferative"
    assert fingerprint.rotation_reason
    assert fingerprint.width > fingerprint.height


def test_images_that_fill_their_frame_are_neither(tmp_path: Path) -> None:
    fingerprint = _fingerprint(_write_noise_images(tmp_path / "pets", ("cat", "dog", "hen")))
    assert fingerprint.appearance == "plain"
    assert fingerprint.content_extent == 1
    assert fingerprint.disc_area == 1
    assert fingerprint.ordinal_reason == ""
    assert fingerprint.rotation_reason == ""
    assert (fingerprint.width, fingerprint.height) == (80, 60)


@pytest.mark.parametrize(
    ("classes", "are_grades"),
    [
        (("mild", "moderate", "severe"), True),
        (("grade 0", "grade 1", "grade 2"), True),
        (("Stage_1", "Stage_2", "Stage_3"), True),
        (("0", "1", "2"), False),
        (("moderate", "mild", "severe"), False),
        (("mild", "severe"), False),
        (("grade 0", "grade 1", "other"), False),
    ],
)
def test_grades_are_recognized_by_their_names(tmp_path: Path, classes: tuple[str, ...], are_grades: bool) -> None:
    folder = _write_noise_images(tmp_path / "set", tuple("abc"[: len(classes)]), n_per_class=8)
    assert bool(_fingerprint(folder, classes=list(classes)).ordinal_reason) == are_grades


def test_numbered_classes_of_fundus_discs_are_grades(tmp_path: Path) -> None:
    folder = synthesize_fundus(tmp_path / "eyes", 30, size=160)
    fingerprint = _fingerprint(folder, classes=["A", "B", "C", "D", "E"])
    assert fingerprint.ordinal_reason == "the codes are 0 to 4, and the images show fundus discs"


def test_names_from_microscopy_allow_rotation(tmp_path: Path) -> None:
    fingerprint = _fingerprint(_write_noise_images(tmp_path / "set", ("lymphocyte", "other")))
    assert "'lymph' in the names" in fingerprint.rotation_reason


def test_a_damaged_image_is_skipped_and_a_data_set_of_damaged_images_rejected(cells: Path) -> None:
    for index in range(48):
        (cells / "new_dataset" / "train" / f"{index}.bmp").write_text("no image")
        if index == 0:
            assert _fingerprint(cells).appearance == "cell"
    with pytest.raises(ParfocalError, match="None of the 48 sampled images"):
        _fingerprint(cells)


def test_data_without_labels_is_rejected(cells: Path) -> None:
    table = read(cells)
    unlabeled = Table(table.rows.assign(label=-1), table.classes, table.codes, "the data")
    with pytest.raises(ParfocalError, match="no labeled training images"):
        compute_fingerprint(unlabeled)
