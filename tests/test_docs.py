"""The reference lists every key, command, layout and network, and links in the documentation are valid."""

import re
from pathlib import Path

import pytest

from parfocal.commands import app
from parfocal.data.layouts import LAYOUTS
from parfocal.models.architectures import ARCHITECTURES
from parfocal.recipe import describe_keys
from parfocal.run import Run

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
]


@pytest.mark.parametrize("row", describe_keys(), ids=lambda row: row[0])
def test_every_recipe_key_is_in_the_reference(row: tuple[str, str, str]) -> None:
    key, default, description = row
    assert f"| `{key}` | {default} | {description} |" in REFERENCE


@pytest.mark.parametrize("name", [command.callback.__name__ for command in app.registered_commands if command.callback])
def test_every_command_is_in_the_reference(name: str) -> None:
    assert f"| `{name} " in REFERENCE


@pytest.mark.parametrize("name", [*LAYOUTS, *ARCHITECTURES])
def test_every_layout_and_network_is_in_the_reference(name: str) -> None:
    assert f"`{name}`" in REFERENCE


def test_the_files_of_a_run_are_in_the_reference() -> None:
    run = Run(Path())
    for path in (run.weights_path, run.checkpoint_path, run.table_path):
        assert f"| `{path.name}` |" in REFERENCE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_are_valid(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
            assert heading in anchors


@pytest.mark.parametrize(("page", "least"), [("tested.md", 150), ("requirements.md", 120)])
def test_every_test_that_the_documentation_names_exists(page: str, least: int) -> None:
    references = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(references) > least
    missing = {
        f"{file}::{name}"
        for file, name in references
        if not (ROOT / file).is_file() or f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    }
    assert not missing


def test_every_requirement_has_a_test_or_none_and_a_state() -> None:
    text = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")
    section = text.partition("## The 115 requirements\n")[2].partition("\n## ")[0]
    rows = re.findall(
        r"^\| (\d+) \| .+ \| (?:none|`tests/[\w/]+\.py::\w+`) \| "
        r"(?:equal\b.*|differs \(.+|rightly not done \(.+) \|$",
        section,
        flags=re.MULTILINE,
    )
    assert rows == [str(number) for number in range(1, 116)]
