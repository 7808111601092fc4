"""Reading any layout: sources and layouts that are not known are errors that list the known ones."""

from pathlib import Path

import pytest

from parfocal.data.layouts import read
from parfocal.errors import ParfocalError, UsageError


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")


def test_a_folder_in_no_known_layout_is_an_error_with_the_known_layouts(tmp_path: Path) -> None:
    with pytest.raises(ParfocalError, match="Known layouts: fundus-lab"):
        read(tmp_path)


def test_an_unknown_layout_name_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'fundus-lab'"):
        read(tmp_path, format="fundus_lab")
