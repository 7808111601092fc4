"""What is measured before a plan is made: counts, looks, grades, and what is at hand."""

from pathlib import Path

import numpy as np
import pytest

from parfocal.data.layouts import read
from parfocal.data.split import split_table
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.recipe import load_recipe
from parfocal.schema import SplitConfig
from parfocal.synthetic.dataset import synthesize_fundus
from parfocal.training.fingerprint import Fingerprint, compute_fingerprint
from tests.cells import write_image


def _measured(source: Path, **changes: object) -> Fingerprint:
    return compute_fingerprint(split_table(read(source, load_recipe(None, **changes)), SplitConfig(), 0))


def _fields(folder: Path, names: tuple[str, ...], each: int = 12, side: tuple[int, int] = (60, 80)) -> Path:
    """Draw a folder of bright noise for each class."""
    dice = np.random.default_rng(3)
    for name in names:
        for number in range(each):
            image = dice.integers(60, 255, (*side, 3)).astype(np.uint8)
            write_image(folder / name / f"{number}.png", image)
    return folder


def test_cells_on_black_are_found_with_the_part_of_the_picture_that_they_take(cells: Path) -> None:
    facts = _measured(cells)
    assert facts.class_counts == (24, 24)
    assert facts.n_groups == 24
    assert (facts.width, facts.height, facts.short_side) == (48, 48, 48)
    assert facts.appearance == "cell"
    assert 0.6 < facts.content_extent < 0.9
    assert facts.rotation_reason
    assert not facts.ordinal_reason
    assert facts.describe().startswith(
        "48 images of 24 patients or groups to train on, 48×48, cells on black; 2 classes"
    )


def test_photographs_of_eyes_are_found_to_be_graded_discs(tmp_path: Path) -> None:
    facts = _measured(synthesize_fundus(tmp_path / "eyes", 30, size=160))
    assert facts.appearance == "disc"
    assert facts.content_extent == 1
    assert facts.ordinal_reason == "the classes are called no dr to proliferative"
    assert facts.rotation_reason
    assert facts.width > facts.height


def test_pictures_that_fill_their_frame_are_neither(tmp_path: Path) -> None:
    facts = _measured(_fields(tmp_path / "pets", ("cat", "dog", "hen")))
    assert (facts.appearance, facts.content_extent, facts.disc_area, facts.ordinal_reason, facts.rotation_reason) == (
        "plain",
        1,
        1,
        "",
        "",
    )
    assert (facts.width, facts.height) == (80, 60)


@pytest.mark.parametrize(
    ("names", "graded"),
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
def test_grades_are_told_by_their_names(tmp_path: Path, names: tuple[str, ...], graded: bool) -> None:
    folder = _fields(tmp_path / "set", tuple("abc"[: len(names)]), each=8)
    assert bool(_measured(folder, classes=list(names)).ordinal_reason) == graded


def test_numbers_below_discs_are_grades(tmp_path: Path) -> None:
    folder = synthesize_fundus(tmp_path / "eyes", 30, size=160)
    facts = _measured(folder, classes=["0", "1", "2", "3", "4"])
    assert facts.ordinal_reason == "the codes are 0 to 4, and the images show fundus discs"


def test_a_microscope_in_the_names_frees_the_rotation(tmp_path: Path) -> None:
    facts = _measured(_fields(tmp_path / "set", ("lymphocyte", "other")))
    assert "'lymph' in the names" in facts.rotation_reason


def test_published_weights_are_seen_where_they_lie(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARFOCAL_WEIGHTS", str(tmp_path))
    assert _measured(cells).cached_networks == ()
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"")
    assert _measured(cells).cached_networks == ("resnet18",)


def test_a_damaged_image_is_passed_over_and_a_set_of_them_refused(cells: Path) -> None:
    for number in range(48):
        (cells / "new_dataset" / "train" / f"{number}.bmp").write_text("no image")
        if number == 0:
            assert _measured(cells).appearance == "cell"
    with pytest.raises(ParfocalError, match="None of the 48 images"):
        _measured(cells)


def test_without_labels_there_is_nothing_to_plan(cells: Path) -> None:
    table = read(cells)
    unlabelled = Table(table.rows.assign(label=-1), table.classes, table.codes, "nothing")
    with pytest.raises(ParfocalError, match="no labelled images"):
        compute_fingerprint(unlabelled)
