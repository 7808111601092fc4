"""The lab report has the headings of the assignment, facts filled in, and marked passages for the author."""

import re
from pathlib import Path

import pytest

from parfocal.report.lab import write_lab_report
from tests.evaluation.trained_run import trained

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
    assert {"figures/accuracy.png", "figures/confusion-resnet20-test.png"} <= {path for _, path in figures}
    for alt, path in figures:
        assert alt
        assert (report.parent / path).is_file()


def test_facts_are_filled_in_and_passages_for_the_author_are_marked(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "84 images (train 48, valid 24, test 12) into 2 classes (normal, blast)" in text
    assert "| `views.rotate` | 20 |" in text
    assert "| resnet20 | 8 |" in text
    assert "parfocal evaluate" in text
    assert text.count("*[Yours to write:") == 9
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert widths
    for block in re.split(r"\n\s*\n", text):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1
