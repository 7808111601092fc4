"""Images without a row are looked for in the folders of the data only, whatever paths the rows name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.data.checks import Finding, check
from parfocal.data.layouts import read
from tests.cells import draw_cell, write_image
from tests.commands.run_command import parfocal

LONG_NAME = f"{'x' * 300}.png"


def _draw_data(folder: Path, names: list[str], *extra_rows: str) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        write_image(folder / name, draw_cell(rng, number % 2, 24))
    rows = [*names, *extra_rows]
    labels = [number % 2 for number in range(len(rows))]
    pd.DataFrame({"path": rows, "label": labels}).to_csv(folder / "labels.csv", index=False)
    return folder


def _find(source: Path, code: str, **changes: str) -> Finding | None:
    findings = {finding.code: finding for finding in check(read(source, **changes))}
    return findings.get(code)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Images next to the folder of the data, which no check may list."""
    for name in ("secret.png", "deep/er.png"):
        write_image(tmp_path / "outside" / name, draw_cell(np.random.default_rng(1), 0, 24))
    return tmp_path / "outside"


@pytest.mark.parametrize("row", ["../outside/secret.png", "../../../../../../etc/passwd", "/etc/passwd", "../x.png"])
def test_a_row_outside_the_folder_lists_no_other_images(tmp_path: Path, outside: Path, row: str) -> None:
    data = _draw_data(tmp_path / "data", ["img/a.png", "img/b.png", "img/c.png"], row)
    for source in (data, data / "labels.csv"):
        assert _find(source, "unlisted_files") is None
        assert parfocal("check", source).returncode in (0, 1)
    write_image(data / "img" / "extra.png", draw_cell(np.random.default_rng(2), 0, 24))
    for source in (data, data / "labels.csv"):
        finding = _find(source, "unlisted_files")
        assert finding
        assert finding.ids == (str(data / "img" / "extra.png"),)


def test_absolute_and_relative_paths_can_be_mixed(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = str(tmp_path / "outside" / "secret.png")
    _draw_data(tmp_path / "data", ["a.png", "b.png", "c.png"], absolute, "./sub/../d.png")
    write_image(tmp_path / "data" / "d.png", draw_cell(np.random.default_rng(2), 0, 24))
    monkeypatch.chdir(tmp_path)
    for source in ("data", "data/labels.csv", str(tmp_path / "data")):
        result = parfocal("check", source)
        assert "5 rows from columns of" in result.stdout
        assert "secret" not in result.stdout


def test_images_in_the_folder_of_the_recipe_are_found_there_only(tmp_path: Path, outside: Path) -> None:
    images = _draw_data(tmp_path / "images", ["a.png", "b.png", "c.png"])
    sheet = tmp_path / "sheets" / "labels.csv"
    sheet.parent.mkdir()
    (images / "labels.csv").rename(sheet)
    write_image(tmp_path / "images" / "sub" / "extra.png", draw_cell(np.random.default_rng(2), 0, 24))
    write_image(tmp_path / "sheets" / "figure.png", draw_cell(np.random.default_rng(3), 0, 24))
    finding = _find(sheet, "unlisted_files", **{"columns.folder": str(images)})
    assert finding
    assert finding.ids == (str(images / "sub" / "extra.png"),)
    finding = _find(sheet.parent, "unlisted_files", **{"columns.folder": str(images)})
    assert finding
    assert set(finding.ids) == {str(images / "sub" / "extra.png"), str(tmp_path / "sheets" / "figure.png")}


def test_links_in_the_folder_are_followed_once(tmp_path: Path, outside: Path) -> None:
    data = _draw_data(tmp_path / "data", ["img/a.png", "img/b.png", "img/c.png"], "linked/secret.png")
    (data / "linked").symlink_to(outside)
    (data / "img" / "loop").symlink_to(data)
    (data / "img" / "parent").symlink_to(tmp_path)
    (data / "img" / "same").symlink_to(data / "linked")
    (data / "root").symlink_to("/")
    finding = _find(data, "unlisted_files")
    assert finding
    assert [Path(path).name for path in finding.ids] == ["er.png"]


def test_a_listed_image_behind_a_link_is_listed(tmp_path: Path, outside: Path) -> None:
    absolute = [str(outside / "secret.png"), str(outside / "deep" / "er.png")]
    data = _draw_data(tmp_path / "data", ["a.png", "b.png"], *absolute)
    (data / "linked").symlink_to(outside)
    assert _find(data, "unlisted_files") is None


@pytest.mark.parametrize("name", [LONG_NAME, f"{'x' * 5000}.png", f"folder/{LONG_NAME}"])
def test_a_name_that_is_too_long_is_missing(tmp_path: Path, name: str) -> None:
    data = _draw_data(tmp_path / "data", [f"{number}.png" for number in range(12)], name)
    finding = _find(data, "missing_files")
    assert finding
    assert finding.ids == (name,)
    result = parfocal("check", data)
    assert result.returncode == 1
    assert "missing_files" in result.stdout


def test_a_name_that_is_too_long_is_missing_in_the_formats_of_the_labs(cells: Path) -> None:
    rows = pd.read_csv(cells / "train.csv")
    rows.loc[0, "Path"] = LONG_NAME
    rows.to_csv(cells / "train.csv", index=False)
    finding = _find(cells, "missing_files")
    assert finding
    assert finding.ids == (LONG_NAME,)
    eyes = cells.parent / "eyes"
    eyes.mkdir()
    (eyes / "train_img.csv").write_text(f"1_left\n{LONG_NAME}\n")
    (eyes / "train_label.csv").write_text("0\n1\n")
    finding = _find(eyes, "missing_files")
    assert finding
    assert finding.ids == ("1_left", LONG_NAME)


def test_masks_are_no_unlisted_images(tmp_path: Path) -> None:
    source = _draw_data(tmp_path / "data", ["a.png", "b.png"])
    write_image(source / "masks" / "a.png", draw_cell(np.random.default_rng(1), 0, 24))
    assert _find(source, "unlisted_files") is None
    write_image(source / "c.png", draw_cell(np.random.default_rng(2), 0, 24))
    finding = _find(source, "unlisted_files")
    assert finding is not None
    assert finding.ids == (str(source / "c.png"),)
