"""Every problem of a data set is found, named with its rows, and accepted only where the recipe says so."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from parfocal.data.checks import Finding, apply_waivers, check, check_table, raise_errors
from parfocal.data.layouts import read
from parfocal.errors import ParfocalError
from parfocal.recipe_schema import ALLOWABLE_FINDINGS
from parfocal.synthetic.dataset import synthesize_smear


def _check(folder: Path) -> dict[str, Finding]:
    return {finding.code: finding for finding in check(read(folder))}


def _check_for_errors(folder: Path) -> dict[str, Finding]:
    return {code: finding for code, finding in _check(folder).items() if finding.severity == "error"}


def _list_class_counts(folder: Path) -> list[str]:
    return [finding.message for finding in check(read(folder)) if finding.code == "class_counts"]


def test_a_good_data_set_has_no_errors_and_a_note_on_its_classes(cells: Path) -> None:
    assert _check_for_errors(cells) == {}
    assert "train: 24 normal, 24 blast. Always predicting 'normal' would score 50.0 % accuracy." in _list_class_counts(
        cells
    )


def test_missing_and_unreadable_files_are_named(cells: Path) -> None:
    images = cells / "new_dataset" / "train"
    (images / "3.bmp").unlink()
    (images / "4.bmp").write_bytes((images / "4.bmp").read_bytes()[:200])
    (images / "5.bmp").write_bytes(b"")
    (images / "6.bmp").write_text("<html>not found</html>")
    errors = _check_for_errors(cells)
    assert errors["missing_files"].ids == ("./new_dataset/train/3.bmp",)
    assert set(errors["unreadable_images"].ids) == {f"./new_dataset/train/{number}.bmp" for number in (4, 5, 6)}
    assert "the file is empty" in errors["unreadable_images"].message


def test_a_patient_in_two_splits_is_found(cells: Path) -> None:
    rows = pd.read_csv(cells / "patients.csv")
    rows.loc[rows["Path"] == "./new_dataset/valid/0.bmp", "patient"] = "train-0-0"
    rows.to_csv(cells / "patients.csv", index=False)
    error = _check_for_errors(cells)["patient_overlap"]
    assert "train-0-0" in error.message
    assert "./new_dataset/valid/0.bmp" in error.ids


def test_identical_images_across_splits_and_with_different_labels_are_found(cells: Path) -> None:
    images = cells / "new_dataset"
    shutil.copy(images / "train" / "0.bmp", images / "valid" / "0.bmp")
    shutil.copy(images / "train" / "2.bmp", images / "train" / "3.bmp")
    errors = _check_for_errors(cells)
    assert set(errors["identical_across_splits"].ids) == {"./new_dataset/train/0.bmp", "./new_dataset/valid/0.bmp"}
    assert set(errors["conflicting_labels"].ids) == {"./new_dataset/train/2.bmp", "./new_dataset/train/3.bmp"}


def test_the_same_pixels_in_another_file_format_are_identical(cells: Path) -> None:
    images = cells / "new_dataset" / "train"
    with Image.open(images / "0.bmp") as image:
        image.save(images / "2.bmp", format="PNG")
    finding = _check(cells)["identical_within_split"]
    assert finding.severity == "warning"
    assert set(finding.ids) == {"./new_dataset/train/0.bmp", "./new_dataset/train/2.bmp"}


def test_duplicate_rows_and_a_single_class_are_found(cells: Path) -> None:
    rows = pd.read_csv(cells / "train.csv")
    rows["label"] = 1
    pd.concat([rows, rows.iloc[:1]]).to_csv(cells / "train.csv", index=False)
    errors = _check_for_errors(cells)
    assert errors["duplicate_rows"].ids == ("./new_dataset/train/0.bmp",)
    assert "one class only" in errors["one_class"].message


def test_a_class_that_a_split_lacks_is_a_warning(cells: Path) -> None:
    rows = pd.read_csv(cells / "valid.csv")
    rows[rows["label"] == 0].to_csv(cells / "valid.csv", index=False)
    assert _check(cells)["class_absent"].message == "The valid split has no image of blast."
    assert "valid: 8 normal, 0 blast. Always predicting 'normal' would score 100.0 % accuracy." in _list_class_counts(
        cells
    )


@pytest.mark.parametrize("code", ALLOWABLE_FINDINGS)
def test_a_waiver_turns_its_error_into_a_warning_that_says_so(code: str) -> None:
    error = Finding("error", code, "Something is wrong.", ("a",), f"Correct it, or accept it with allow={code}.")
    other_error = Finding("error", "one_class", "One class.", (), "Add another.")
    waived, unchanged = apply_waivers([error, other_error], (code,))
    assert (waived.severity, waived.ids) == ("warning", ("a",))
    assert f"Waived by allow={code}" in waived.message
    assert unchanged == other_error


def test_the_error_lists_every_problem_with_its_remedy(draw: Callable[..., Path], tmp_path: Path) -> None:
    folder = draw(tmp_path / "cells", train=8, valid=4, test=2)
    (folder / "new_dataset" / "train" / "1.bmp").unlink()
    (folder / "new_dataset" / "valid" / "1.bmp").write_bytes(b"")
    with pytest.raises(ParfocalError) as error:
        raise_errors(check(read(folder)))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("Add the files, or remove the rows, or accept it with allow=missing_files.")
    assert "new_dataset/valid/1.bmp (the file is empty)" in lines[1]


def test_near_duplicates_across_splits_are_a_warning(tmp_path: Path) -> None:
    smears = synthesize_smear(tmp_path / "smears", 40, size=160)
    with Image.open(smears / "new_dataset" / "train" / "0.bmp") as image:
        image.save(tmp_path / "copy.jpeg", quality=85)
    shutil.copy(tmp_path / "copy.jpeg", smears / "new_dataset" / "valid" / "0.bmp")
    findings = _check(smears)
    warning = findings["near_duplicates_across_splits"]
    assert warning.severity == "warning"
    assert set(warning.ids) == {"./new_dataset/train/0.bmp", "./new_dataset/valid/0.bmp"}
    assert "1 wrong-suffix" in findings["unusual_images"].message


def test_a_corner_that_predicts_the_label_is_a_shortcut(cells: Path) -> None:
    for split, count in (("train", 48), ("valid", 16)):
        for number in range(1, count, 2):
            path = cells / "new_dataset" / split / f"{number}.bmp"
            with Image.open(path) as file:
                image = file.copy()
            image.paste((255, 255, 255), (0, 0, 5, 5))
            image.save(path)
    message = _check(cells)["shortcut"].message
    assert "top left corner" in message
    assert "top right corner" not in message


def test_with_imbalanced_classes_the_note_recommends_balanced_accuracy(cells: Path) -> None:
    rows = pd.read_csv(cells / "train.csv")
    pd.concat([rows[rows["label"] == 1].iloc[:6], rows[rows["label"] == 0]]).to_csv(cells / "train.csv", index=False)
    message = _list_class_counts(cells)[0]
    assert "Always predicting 'normal' would score 80.0 % accuracy. Judge by balanced accuracy instead." in message


def test_images_that_are_in_no_row_are_a_note(cells: Path) -> None:
    shutil.copy(cells / "new_dataset" / "train" / "0.bmp", cells / "new_dataset" / "train" / "extra.bmp")
    assert _check(cells)["unlisted_files"].ids == (str(cells / "new_dataset" / "train" / "extra.bmp"),)


def test_labels_with_file_hashes_are_checked_for_duplicates_without_the_images(tmp_path: Path) -> None:
    """The labels are as many as those of C-NMC, with its 104 pairs of identical images, 94 of them in two folds."""
    count = 10_661
    digests = [f"{number:064x}" for number in range(count)]
    folds = [f"fold_{number % 3}" for number in range(count)]
    for pair in range(104):
        digests[3 * pair + 1] = digests[3 * pair] if pair < 94 else digests[3 * pair + 1]
        if pair >= 94:
            digests[3 * pair + 3000] = digests[3 * pair]
    names = [f"UID_{number // 150}_{number}_1_all.bmp" for number in range(count)]
    labels = ["all" if number % 3000 < 2000 else "hem" for number in range(count)]
    rows = {"name": names, "fold": folds, "label": labels, "patient": names, "sha256": digests}
    pd.DataFrame(rows).to_csv(tmp_path / "index.csv", index=False)
    findings = {finding.code: finding for finding in check_table(read(tmp_path))}
    assert findings["identical_across_folds"].message.startswith("94 sets")
    assert findings["identical_within_split"].message.startswith("10 sets")


def test_paths_with_backslashes_are_explained(cells: Path) -> None:
    rows = pd.read_csv(cells / "train.csv")
    rows["Path"] = rows["Path"].str.replace("/", "\\")
    rows.to_csv(cells / "train.csv", index=False)
    (finding,) = [finding for finding in check_table(read(cells)) if finding.code == "missing_files"]
    assert "Their paths contain backslashes" in finding.message


def test_an_image_with_two_labels_is_told_so(cells: Path) -> None:
    rows = pd.read_csv(cells / "train.csv")
    pd.concat([rows, rows.iloc[:1].assign(label=1)]).to_csv(cells / "train.csv", index=False)
    errors = {finding.code: finding for finding in check_table(read(cells)) if finding.severity == "error"}
    assert "with different labels: ./new_dataset/train/0.bmp" in errors["conflicting_labels"].message
    assert "duplicate_rows" not in errors


def test_images_of_quite_another_size_are_listed(cells: Path) -> None:
    path = cells / "new_dataset" / "train" / "0.bmp"
    with Image.open(path) as image:
        image.resize((48, 10)).save(path)
    finding = _check(cells)["unusual_sizes"]
    assert "usual 48×48: ./new_dataset/train/0.bmp (48×10)." in finding.message
