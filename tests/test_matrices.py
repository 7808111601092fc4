"""The tutorial of the three matrices runs as it is written, and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from parfocal.evaluation.metrics import compute_metrics
from parfocal.evaluation.predictions import Predictions

PAGE = (Path(__file__).parents[1] / "docs" / "three-matrices.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the page's code in an empty folder; return the folder and what was printed."""
    folder, said = tmp_path_factory.mktemp("matrices"), io.StringIO()
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    with contextlib.chdir(folder), contextlib.redirect_stdout(said):
        exec(compile(code, "three-matrices.md", "exec"), {})
    return folder, said.getvalue()


def test_it_prints_what_it_says(followed: tuple[Path, str]) -> None:
    assert re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL) == [followed[1]]


@pytest.mark.parametrize(
    ("name", "images", "accuracy", "balanced", "kappa"),
    [
        ("resnet18", 7024, 0.7826, 0.505, 0.670),
        ("resnet50", 7024, 0.7679, 0.516, 0.660),
        ("all zero", 7025, 0.7335, 0.2, 0),
    ],
)
def test_the_matrices_give_their_own_figures_and_not_those_above_them(
    followed: tuple[Path, str], name: str, images: int, accuracy: float, balanced: float, kappa: float
) -> None:
    found = compute_metrics(Predictions.load(followed[0] / f"{name}.csv"))
    assert found["count"] == images
    assert found["accuracy"] == pytest.approx(accuracy, abs=5e-5)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=5e-4)
    assert found["quadratic_kappa"] == pytest.approx(kappa, abs=5e-4)
    assert (found["accuracy"] == found["majority_accuracy"]) == (name == "all zero")
