"""The documentation tells the truth: every key, verb and network stands in it, and links lead somewhere."""

import re
from pathlib import Path

import pytest

from parfocal.commands import app
from parfocal.data.layouts import LAYOUTS
from parfocal.models.resnet import ARCHITECTURES
from parfocal.recipe import describe_keys
from parfocal.run import Run

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


@pytest.mark.parametrize("row", describe_keys(), ids=lambda row: row[0])
def test_every_key_of_a_recipe_stands_in_the_reference(row: tuple[str, str, str]) -> None:
    key, default, meaning = row
    assert f"| `{key}` | {default} | {meaning} |" in REFERENCE


@pytest.mark.parametrize("verb", [command.callback.__name__ for command in app.registered_commands if command.callback])
def test_every_verb_stands_in_the_reference(verb: str) -> None:
    assert f"| `{verb} " in REFERENCE


@pytest.mark.parametrize("word", [*LAYOUTS, *ARCHITECTURES])
def test_every_layout_and_network_stands_in_the_reference(word: str) -> None:
    assert f"`{word}`" in REFERENCE


def test_the_files_of_a_run_stand_in_the_reference() -> None:
    run = Run(Path())
    for path in (run.weights_path, run.checkpoint_path, run.table_path):
        assert f"| `{path.name}` |" in REFERENCE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        place, _, heading = target.partition("#")
        file = page.parent / place if place else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]
