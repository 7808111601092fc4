"""Labels are read right or refused: missing labels, numbers that cannot be a class, and sheets from other programs."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.data.checks import check_table
from parfocal.data.labels import parse_labels
from parfocal.data.layouts import read
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from tests.cells import draw_cell, write_image
from tests.commands.run_command import expect_error, parfocal

MISSING = ["nan", "NaN", "NA", "N/A", "None", "null", "inf", "-inf", " nan ", ""]


def _write_sheet(folder: Path, labels: list[str], name: str = "labels.csv") -> Path:
    rows = pd.DataFrame({"path": [f"{number}.png" for number in range(len(labels))], "label": labels})
    file = folder / name
    rows.to_csv(file, index=False)
    return file


def _write_npz(
    file: Path, labels: Sequence[float] | np.ndarray, n_images: int | None = None, **others: np.ndarray
) -> Path:
    n_images = len(labels) if n_images is None else n_images
    images = np.zeros((n_images, 8, 8), np.uint8)
    np.savez_compressed(file, train_images=images, train_labels=np.asarray(labels), **others)  # pyright: ignore
    return file


def _count_unlabeled(table: Table) -> int:
    return int((table.rows["label"] == -1).sum())


@pytest.mark.parametrize("word", MISSING)
def test_words_for_missing_values_among_numbers_are_missing_labels(tmp_path: Path, word: str) -> None:
    table = read(_write_sheet(tmp_path, ["0", "1", "2.0", word, "0.0"]))
    assert table.codes == ("0", "1", "2")
    assert table.rows["label"].tolist() == [0, 1, 2, -1, 0]
    (finding,) = [finding for finding in check_table(table) if finding.code == "unlabeled_rows"]
    assert finding.severity == "error"
    assert finding.ids == ("3.png",)


@pytest.mark.parametrize("word", ["nan", "NA", "None", "inf"])
def test_words_for_missing_values_among_words_are_a_class_with_a_note(tmp_path: Path, word: str) -> None:
    table = read(_write_sheet(tmp_path, ["mild", "severe", word, "mild"]))
    assert word in table.classes
    assert _count_unlabeled(table) == 0
    (note,) = [finding for finding in check_table(table) if finding.code == "class_named_missing"]
    assert note.severity == "note"
    assert note.message == f"The class {word!r} has 1 images; its name may mean a missing label."
    assert note.ids == ("2.png",)


@pytest.mark.parametrize("value", ["-1", "0.5", "1e9", "1000000000", "-1.0", "1e-3", "1e400"])
def test_a_number_that_cannot_be_a_grade_is_an_error_with_its_line(tmp_path: Path, value: str) -> None:
    file = _write_sheet(tmp_path, ["0", "1", "2", value, "3"])
    for arguments in (("check", file), ("check", tmp_path)):
        message = expect_error(parfocal(*arguments), 1)
        assert f"{file}, line 5: the label is {value}." in message
        assert "leave it empty if the label is missing" in message


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        (["-1", "1", "1"], ("1", "-1")),
        (["36201", "36202", "1000000000"], ("36201", "36202", "1000000000")),
        (["0", "0.0", "-0.0", "1", "1e0"], ("0", "1")),
        (["01", "02"], ("01", "02")),
        (["T1", "0.5", "-1"], ("0.5", "-1", "T1")),
        (["none", "NA"], ("NA", "none")),
    ],
)
def test_other_codes_stay_classes(labels: list[str], codes: tuple[str, ...]) -> None:
    parsed, found = parse_labels(labels, str)
    assert found == codes
    assert -1 not in parsed


def test_labels_of_arrays_follow_the_same_rules(tmp_path: Path) -> None:
    table = read(_write_npz(tmp_path / "missing.npz", [0.0, 1.0, float("nan"), float("inf"), 2.0]))
    assert table.codes == ("0", "1", "2")
    assert table.rows["label"].tolist() == [0, 1, -1, -1, 2]
    others = {"val_images": np.zeros((2, 8, 8), np.uint8), "val_labels": np.array([0, 1])}
    table = read(_write_npz(tmp_path / "mixed.npz", [0.0, 1.0, -0.0], **others))
    assert table.codes == ("0", "1")
    for value in (-1, 0.5, 1e9):
        file = _write_npz(tmp_path / "wrong.npz", [0, 1, 2, value])
        message = expect_error(parfocal("check", file), 1)
        assert f"{file}, label of train_images/3: the label is" in message


@pytest.mark.parametrize("n_images", [3, 9])
def test_arrays_with_more_images_than_labels_or_fewer_are_an_error(tmp_path: Path, n_images: int) -> None:
    file = _write_npz(tmp_path / "set.npz", [0, 1, 0, 1, 1], n_images)
    message = expect_error(parfocal("check", file), 1)
    assert f"{file} has {n_images} train_images, but 5 train_labels. Each image needs one label." in message


def test_damaged_archives_of_arrays_end_in_a_message(tmp_path: Path) -> None:
    file = _write_npz(tmp_path / "set.npz", [0, 1] * 500)
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] = int(rng.integers(0, 256))
        file.write_bytes(damaged[: int(rng.integers(len(data) // 2, len(data)))] if rng.random() < 0.3 else damaged)
        # Some damage changes pixels only, which decoding finds.
        with suppress(ParfocalError):
            read(file)


def test_arrays_that_are_no_archive_of_labels_end_in_a_message(tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    with file.open("wb") as stream:
        np.save(stream, np.zeros(5))
    assert "is not a readable .npz file" in expect_error(parfocal("check", file), 1)
    np.savez(file, train_images=np.zeros((5, 8, 8), np.uint8), train_labels=np.int64(3))
    assert "has 5 train_images, but 0 train_labels" in expect_error(parfocal("check", file), 1)
    np.savez(file, train_labels=np.zeros(3, np.int64))
    assert "has train_labels, but no train_images" in expect_error(parfocal("check", file), 1)
    np.savez(file, train_images=np.zeros((0, 8, 8), np.uint8), train_labels=np.zeros((0, 1), np.int64))
    assert "contains no train_images and train_labels" in expect_error(parfocal("check", file), 1)


def test_labels_that_unpack_to_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    images = np.zeros((1 << 20, 1, 1), np.uint8)
    file = tmp_path / "bomb.npz"
    np.savez_compressed(file, train_images=images, train_labels=np.zeros(len(images), "S300"))
    assert file.stat().st_size < 1_000_000
    assert "train_labels needs 0.3 GB, too much for labels" in expect_error(parfocal("check", file), 1)


@pytest.mark.parametrize(
    ("separator", "encoding"),
    [
        (";", "utf-8"),
        (";", "latin-1"),
        (",", "cp1252"),
        ("\t", "utf-8"),
        (",", "utf-16"),
        ("\t", "utf-16-le"),
        (";", "utf-16-be"),
        (",", "utf-8-sig"),
    ],
)
def test_sheets_of_other_programs_are_read(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = [("Datei", "label"), ("Präparat 1.png", "größer"), ("b.png", "kleiner"), ("c.png", "kleiner")]
    text = "\r\n".join(separator.join(cells) for cells in [("path", "label"), *lines[1:]])
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    for name in ("Präparat 1", "b", "c"):
        write_image(tmp_path / f"{name}.png", draw_cell(np.random.default_rng(0), 0, 24))
    for source in (tmp_path, tmp_path / "labels.csv"):
        table = read(source)
        assert table.classes == ("größer", "kleiner")
        assert table.rows["id"].tolist() == ["Präparat 1.png", "b.png", "c.png"]
        assert all(Path(path).is_file() for path in table.rows["path"])


def test_a_sheet_that_is_no_text_is_refused_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    for data in (b"path,label\n\x81\x8d.png,1\n", b"PK\x03\x04\0\1\2\0\0path,label"):
        file.write_bytes(data)
        message = expect_error(parfocal("check", file), 1)
        assert "is not text in UTF-8, UTF-16 or Latin-1. Save it as CSV in UTF-8" in message
