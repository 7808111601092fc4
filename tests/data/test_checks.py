"""Every fault of a data set is found, named with its rows, and waived only knowingly."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from parfocal.data.checks import check, check_table
from parfocal.data.findings import Finding, apply_waivers, raise_errors
from parfocal.data.layouts import read
from parfocal.errors import ParfocalError
from parfocal.schema import ALLOWABLE_FINDINGS
from parfocal.synthetic.dataset import synthesize_smear


def _errors(folder: Path) -> dict[str, Finding]:
    return {one.code: one for one in check(read(folder)) if one.severity == "error"}


def test_a_good_set_has_no_errors_and_states_its_classes(cells: Path) -> None:
    findings = check(read(cells))
    assert "error" not in {one.severity for one in findings}
    assert "train: 24 normal, 24 blast; always saying 'normal' is right in 50.0%." in [one.message for one in findings]


def test_missing_and_unreadable_files_are_named(cells: Path) -> None:
    images = cells / "new_dataset" / "train"
    (images / "3.bmp").unlink()
    (images / "4.bmp").write_bytes((images / "4.bmp").read_bytes()[:200])
    (images / "5.bmp").write_bytes(b"")
    (images / "6.bmp").write_text("<html>not found</html>")
    found = _errors(cells)
    assert found["missing_files"].ids == ("./new_dataset/train/3.bmp",)
    assert set(found["unreadable_images"].ids) == {f"./new_dataset/train/{number}.bmp" for number in (4, 5, 6)}
    assert "the file is empty" in found["unreadable_images"].message


def test_a_patient_on_both_sides_is_found(cells: Path) -> None:
    rows = pd.read_csv(cells / "patients.csv")
    rows.loc[rows["Path"] == "./new_dataset/valid/0.bmp", "patient"] = "train-0-0"
    rows.to_csv(cells / "patients.csv", index=False)
    found = _errors(cells)["patient_overlap"]
    assert "train-0-0" in found.message
    assert "./new_dataset/valid/0.bmp" in found.ids


def test_identical_images_across_splits_and_with_different_labels_are_found(cells: Path) -> None:
    images = cells / "new_dataset"
    shutil.copy(images / "train" / "0.bmp", images / "valid" / "0.bmp")
    shutil.copy(images / "train" / "2.bmp", images / "train" / "3.bmp")
    found = _errors(cells)
    assert set(found["identical_across_splits"].ids) == {"./new_dataset/train/0.bmp", "./new_dataset/valid/0.bmp"}
    assert set(found["conflicting_labels"].ids) == {"./new_dataset/train/2.bmp", "./new_dataset/train/3.bmp"}


def test_the_same_pixels_under_another_format_are_identical(cells: Path) -> None:
    images = cells / "new_dataset" / "train"
    with Image.open(images / "0.bmp") as image:
        image.save(images / "2.bmp", format="PNG")
    findings = {one.code: one for one in check(read(cells))}
    assert findings["identical_within_split"].severity == "warning"
    assert set(findings["identical_within_split"].ids) == {"./new_dataset/train/0.bmp", "./new_dataset/train/2.bmp"}


def test_doubled_rows_and_a_single_class_are_found(cells: Path) -> None:
    rows = pd.read_csv(cells / "train.csv")
    rows["label"] = 1
    pd.concat([rows, rows.iloc[:1]]).to_csv(cells / "train.csv", index=False)
    found = _errors(cells)
    assert found["duplicate_rows"].ids == ("./new_dataset/train/0.bmp",)
    assert "one class only" in found["one_class"].message


def test_a_class_that_a_split_lacks_is_a_warning(cells: Path) -> None:
    rows = pd.read_csv(cells / "valid.csv")
    rows[rows["label"] == 0].to_csv(cells / "valid.csv", index=False)
    findings = {one.code: one for one in check(read(cells))}
    assert findings["class_absent"].message == "The valid split has no image of blast."


@pytest.mark.parametrize("code", ALLOWABLE_FINDINGS)
def test_a_waiver_turns_its_error_into_a_warning_that_says_so(code: str) -> None:
    fault = Finding("error", code, "Something is wrong.", ("a",), f"Mend it, or accept it with allow={code}.")
    other = Finding("error", "one_class", "One class.", (), "Give it two.")
    kept, still = apply_waivers([fault, other], (code,))
    assert (kept.severity, kept.ids) == ("warning", ("a",))
    assert f"Waived by allow={code}" in kept.message
    assert still == other


def test_refusing_lists_every_error_with_its_remedy(draw: Callable[..., Path], tmp_path: Path) -> None:
    folder = draw(tmp_path / "cells", train=8, valid=4, test=2)
    (folder / "new_dataset" / "train" / "1.bmp").unlink()
    (folder / "new_dataset" / "valid" / "1.bmp").write_bytes(b"")
    with pytest.raises(ParfocalError) as error:
        raise_errors(check(read(folder)))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("Put the files there, or take the rows out, or accept it with allow=missing_files.")
    assert "new_dataset/valid/1.bmp (the file is empty)" in lines[1]


def test_images_that_look_nearly_the_same_across_splits_are_a_warning(tmp_path: Path) -> None:
    smears = synthesize_smear(tmp_path / "smears", 40, size=160)
    with Image.open(smears / "new_dataset" / "train" / "0.bmp") as image:
        image.save(tmp_path / "copy.jpeg", quality=85)
    shutil.copy(tmp_path / "copy.jpeg", smears / "new_dataset" / "valid" / "0.bmp")
    found = {one.code: one for one in check(read(smears))}
    assert set(found["alike_across_splits"].ids) == {"./new_dataset/train/0.bmp", "./new_dataset/valid/0.bmp"}
    assert "1 wrong-suffix" in found["unusual_images"].message


def test_a_corner_that_gives_the_label_away_is_a_shortcut(cells: Path) -> None:
    for split, count in (("train", 48), ("valid", 16)):
        for number in range(1, count, 2):
            path = cells / "new_dataset" / split / f"{number}.bmp"
            with Image.open(path) as file:
                image = file.copy()
            image.paste((255, 255, 255), (0, 0, 5, 5))
            image.save(path)
    (told,) = [one.message for one in check(read(cells)) if one.code == "shortcut"]
    assert "top left corner" in told
    assert "top right corner" not in told


def test_what_accuracy_would_mean_is_said_where_classes_are_uneven(cells: Path) -> None:
    rows = pd.read_csv(cells / "train.csv")
    pd.concat([rows[rows["label"] == 1].iloc[:6], rows[rows["label"] == 0]]).to_csv(cells / "train.csv", index=False)
    texts = [one.message for one in check(read(cells)) if one.code == "class_counts"]
    assert "always saying 'normal' is right in 80.0%, so that is what an accuracy of as much would mean" in texts[0]


def test_images_that_no_row_names_are_told(cells: Path) -> None:
    shutil.copy(cells / "new_dataset" / "train" / "0.bmp", cells / "new_dataset" / "train" / "extra.bmp")
    found = {one.code: one for one in check(read(cells))}
    assert found["unnamed_files"].ids == (str(cells / "new_dataset" / "train" / "extra.bmp"),)


def test_an_index_with_digests_is_checked_for_doubles_without_its_images(tmp_path: Path) -> None:
    """An index as large as C-NMC's, with its 104 pairs of identical images, 94 of them in two folds."""
    count = 10_661
    digests = [f"{number:064x}" for number in range(count)]
    folds = [f"fold_{number % 3}" for number in range(count)]
    for pair in range(104):
        digests[3 * pair + 1] = digests[3 * pair] if pair < 94 else digests[3 * pair + 1]
        if pair >= 94:
            digests[3 * pair + 3000] = digests[3 * pair]
    names = [f"UID_{number // 150}_{number}_1_all.bmp" for number in range(count)]
    labels = ["all" if number % 3000 < 2000 else "hem" for number in range(count)]
    rows = {"name": names, "fold": folds, "label": ["all"] * count, "patient": names, "sha256": digests}
    pd.DataFrame(rows).assign(label=labels).to_csv(tmp_path / "index.csv", index=False)
    found = {one.code: one for one in check_table(read(tmp_path))}
    assert found["identical_across_folds"].message.startswith("94 sets")
    assert found["identical_within_split"].message.startswith("10 sets")
