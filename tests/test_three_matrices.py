"""The code of the page on the three printed matrices runs and prints what the page shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions

PAGE = (Path(__file__).parents[1] / "docs" / "three-matrices.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the code of the page in an empty folder; return the folder and the output."""
    folder = tmp_path_factory.mktemp("matrices")
    output = io.StringIO()
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    with contextlib.chdir(folder), contextlib.redirect_stdout(output):
        exec(compile(code, "three-matrices.md", "exec"), {})
    return folder, output.getvalue()


def test_the_output_is_that_of_the_page(page_run: tuple[Path, str]) -> None:
    assert re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL) == [page_run[1]]


@pytest.mark.parametrize(
    ("name", "n_images", "accuracy", "balanced_accuracy", "kappa"),
    [
        ("resnet18", 7024, 0.7826, 0.505, 0.670),
        ("resnet50", 7024, 0.7679, 0.516, 0.660),
        ("all zero", 7025, 0.7335, 0.2, 0),
    ],
)
def test_the_metrics_follow_from_the_matrices_and_not_from_the_text_above_them(
    page_run: tuple[Path, str], name: str, n_images: int, accuracy: float, balanced_accuracy: float, kappa: float
) -> None:
    metrics = compute_metrics(Predictions.load(page_run[0] / f"{name}.csv"))
    assert metrics["count"] == n_images
    assert metrics["accuracy"] == pytest.approx(accuracy, abs=5e-5)
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy, abs=5e-4)
    assert metrics["quadratic_kappa"] == pytest.approx(kappa, abs=5e-4)
    assert (metrics["accuracy"] == metrics["majority_accuracy"]) == (name == "all zero")
