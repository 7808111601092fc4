"""The lab report has the headings of the assignment, facts filled in, and marked passages for the author."""

import html
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from parfocal.report.lab import write_lab_report
from tests.evaluation.trained_run import trained
from tests.report.hostile_run import CLASS_NAME, DATA_FOLDER, RUN_NAME, SOURCE, make_hostile_run

__all__ = ["trained"]

HEADINGS = """## 1. Introduction
## 2. Implementation Details
### A. The details of your model (ResNet)
### B. The details of your Dataloader
### C. Describing your evaluation through the confusion matrix
## 3. Data Preprocessing
### A. How you preprocessed your data?
### B. What makes your method special?
## 4. Experimental results
### A. The highest testing accuracy
#### Screenshot
#### Anything you want to present
### B. Comparison figures
#### Plotting the comparison figures
## 5. Discussion
### A. Anything you want to share""".splitlines()


@pytest.fixture(scope="module")
def report(trained: Path) -> Path:
    page = write_lab_report([trained / "runs"], trained / "lab" / "report.md").report_path
    assert page is not None
    return page


def test_it_has_the_headings_of_the_assignment_in_order(report: Path) -> None:
    lines = report.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("##")] == HEADINGS


def test_its_figures_exist_and_have_alt_text(report: Path) -> None:
    figures = re.findall(r"!\[(.+?)\]\((.+?)\)", report.read_text(encoding="utf-8"))
    assert {"figures/accuracy.png", "figures/views.png", "figures/confusion-resnet20-test.png"} <= {
        path for _, path in figures
    }
    for alt, path in figures:
        assert alt
        assert (report.parent / path).is_file()


def test_facts_are_filled_in_and_passages_for_the_author_are_marked(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "84 images (train 48, valid 24, test 12) into 2 classes (normal, blast)" in text
    assert "| `views.rotate` | 20 |" in text
    assert "| resnet20 | 8 |" in text
    assert "The batch size is 8." in text
    assert "parfocal evaluate" in text
    assert text.count("*[Yours to write:") == 9
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert widths
    for block in re.split(r"\n\s*\n", text):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


def test_names_cannot_add_markup_or_commands(trained: Path, tmp_path: Path) -> None:
    run = make_hostile_run(trained / "runs" / "resnet20", tmp_path / "a ``` b")
    page = write_lab_report([run], tmp_path / "lab.md").report_path
    assert page is not None
    text = page.read_text(encoding="utf-8")
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert re.findall(r"<(?:h[1-6])>", rendered) == ["<h1>", *(f"<h{line.index(' ')}>" for line in HEADINGS)]
    assert not re.search(r"<(script|b|a)\b|<img src=\"(?!figures/)", rendered)
    for name in (RUN_NAME, CLASS_NAME, " ".join(SOURCE.split())):
        assert html.escape(name, quote=False) in rendered.replace("&quot;", '"')
    for path in re.findall(r'<img src="(.+?)"', rendered):
        assert (tmp_path / unquote(html.unescape(path))).is_file()
    commands = [html.unescape(block) for block in re.findall(r'<code class="language-sh">(.+?)</code>', rendered, re.S)]
    assert Path(shlex.split(commands[0])[2]).resolve() == run.folder
    assert shlex.split(commands[1])[2] == DATA_FOLDER
