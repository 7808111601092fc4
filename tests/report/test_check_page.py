"""The page of a data check is self-contained, lists errors first, and shows any name safely."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from parfocal.data.checks import Finding, check
from parfocal.data.layouts import read
from parfocal.data.table import UNKNOWN, Table
from parfocal.report.check_page import MAX_IDS, MAX_THUMBNAILS, write_check_page


class _Page(HTMLParser):
    """Collects the images, URLs and placeholders of a page, and the text that a reader sees."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.urls: list[str] = []
        self.placeholders: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.urls += [attributes[name] for name in ("src", "href", "action") if name in attributes]
        if tag == "img":
            self.images.append(attributes)
        elif attributes.get("role") == "img":
            self.placeholders.append(attributes["aria-label"])

    def handle_data(self, data: str) -> None:
        self.text += data


def _write_page(folder: Path, table: Table, findings: list[Finding]) -> _Page:
    path = folder / "check.html"
    write_check_page(path, table, findings)
    return _Page(path)


def _edit_row(table: Table, row: int, **changes: str | int) -> Table:
    rows = table.rows.copy()
    for column, value in changes.items():
        rows.loc[row, column] = value
    return replace(table, rows=rows)


def test_the_page_loads_nothing_from_a_server_and_all_images_have_alt_text(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    page = _write_page(tmp_path, table, [Finding("warning", "alike", "Two look alike.", tuple(table.rows["id"][:2]))])
    assert len(page.images) == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.urls)
    assert all(picture["alt"] for picture in page.images)
    assert not re.search(r"url\(|@import|<script|<link", page.source)


def test_it_shows_the_source_and_the_number_of_images_of_each_class(cells: Path, tmp_path: Path) -> None:
    table = _edit_row(read(cells), 0, label=UNKNOWN)
    page = _write_page(tmp_path, table, [])
    assert table.source in page.text
    assert re.search(r"train\s*48\s*24\s*23\s*24\s*1\s", page.text)
    assert "No errors in" in page.text
    assert "Training can start." in page.text


def test_errors_come_first_with_their_remedy(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    findings = [
        Finding("note", "class_counts", "A note."),
        Finding("warning", "class_absent", "A warning."),
        Finding("error", "one_class", "An error.", (), "Give it two."),
    ]
    text = _write_page(tmp_path, table, findings).text
    assert text.index("An error.") < text.index("Give it two.") < text.index("A warning.") < text.index("A note.")
    assert "1 error and 1 warning in" in text
    assert "Training does not start" in text


def test_thumbnails_are_small_and_have_id_label_and_split(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    wide = np.zeros((60, 240, 3), np.uint8)
    wide[:] = (0, 0, 255)
    cv2.imwrite(str(table.rows["path"][1]), wide)
    (picture,) = _write_page(tmp_path, table, [Finding("note", "one", "One.", (table.rows["id"][1],))]).images
    data = base64.b64decode(picture["src"].partition(",")[2])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown.shape == (96, 96, 3)
    assert shown[48, 48, 2] > 240
    assert shown[2].max() < 20
    assert picture["alt"] == f"Image {table.rows['id'][1]}: blast, train"


def test_an_unreadable_or_missing_image_has_a_placeholder_with_the_reason(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    Path(table.rows["path"][0]).unlink()
    Path(table.rows["path"][1]).write_bytes(b"")
    page = _write_page(tmp_path, table, check(table))
    assert any("the file is missing" in gap for gap in page.placeholders)
    assert any("the file is empty" in gap for gap in page.placeholders)


@pytest.mark.parametrize(
    "odd",
    ["<img src=x onerror=alert(1)>", "\" autofocus onfocus='x'", "{{ 7 * 7 }}", "a\u202eb & c", "żółw 細胞 🩸", "a\nb"],
)
def test_ids_and_messages_may_contain_any_characters(cells: Path, tmp_path: Path, odd: str) -> None:
    table = _edit_row(read(cells), 0, id=odd)
    page = _write_page(tmp_path, replace(table, source=odd), [Finding("error", "odd", odd, (odd,), odd)])
    assert [picture["alt"] for picture in page.images] == [f"Image {odd}: normal, train"]
    assert page.text.count(odd) >= 5
    assert page.urls == [page.images[0]["src"]]


def test_a_file_name_that_is_not_valid_unicode_does_not_stop_the_page(cells: Path, tmp_path: Path) -> None:
    assert "caf?.png" in _write_page(tmp_path, read(cells), [Finding("note", "odd", "Odd.", ("caf\udce9.png",))]).text


def test_thousands_of_ids_do_not_make_a_huge_page(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    known = tuple(table.rows["id"])
    ids = (*known, *(f"images/a-folder-with-a-long-name/{number:08d}.png" for number in range(20_000)), *known)
    page = _write_page(
        tmp_path, table, [Finding("warning", "many", "Many.", ids), Finding("note", "few", "Few.", known)]
    )
    assert len(page.images) == 2 * MAX_THUMBNAILS
    assert f"The first {MAX_IDS:,} of {20_000 + len(known):,} ids" in page.text
    assert f"{len(known)} ids" in page.text
    assert len(page.source) < 2_000_000


def test_ids_without_a_row_are_listed_without_a_thumbnail(cells: Path, tmp_path: Path) -> None:
    page = _write_page(tmp_path, read(cells), [Finding("error", "lost", "Lost.", ("nowhere.png",))])
    assert page.images == []
    assert page.placeholders == []
    assert "nowhere.png" in page.text


def test_an_id_in_several_rows_has_one_thumbnail(cells: Path, tmp_path: Path) -> None:
    rows = read(cells).rows
    table = _edit_row(read(cells), 1, id=rows["id"][0], label=int(rows["label"][0]))
    (doubled,) = (one for one in check(table) if one.code == "duplicate_rows")
    assert len(_write_page(tmp_path, table, [doubled]).images) == 1
