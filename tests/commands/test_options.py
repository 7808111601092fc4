"""Shell completion of recipes, networks and recipe keys."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parfocal.commands.options import complete_change, complete_recipe


def test_recipes_and_files_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("leuk.yaml", "leuk.txt", "automatic.yml"):
        (tmp_path / name).touch()
    (tmp_path / "leuk").mkdir()
    assert complete_recipe("leuk") == ["leukemia", "leukemia-adam", "leukemia-sgd", "leuk.yaml", "leuk/"]
    assert complete_recipe("au") == ["auto", "automatic.yml"]
    assert complete_recipe(f"{tmp_path}/leuk.y") == [f"{tmp_path}/leuk.yaml"]


def test_the_shell_gets_the_completions_of_a_command() -> None:
    environment = {**os.environ, "_PARFOCAL_COMPLETE": "complete_bash"}
    for words, expected in (("train DATA model=plain5", "model=plain56"), ("train DATA --recipe ret", "retinopathy")):
        environment |= {"COMP_WORDS": f"parfocal {words}", "COMP_CWORD": str(len(words.split()))}
        code = "import sys; from parfocal.commands import main; sys.argv = ['parfocal']; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == [expected]


@pytest.mark.parametrize(
    ("incomplete", "expected"),
    [
        ("crop_s", ["crop_size=", "crop_scale="]),
        ("training.ep", ["training.epochs="]),
        ("optimizer=ad", ["optimizer=adam", "optimizer=adamw"]),
        ("training.loss=foc", ["training.loss=focal"]),
        ("model=resnet5", ["model=resnet50", "model=resnet56"]),
        ("model=resnet18,resnet50", ["model=resnet18,resnet50"]),
        ("network.model=plain1", ["network.model=plain18"]),
        ("epochs=1", []),
        ("unknown=1", []),
    ],
)
def test_keys_and_their_choices_are_completed(incomplete: str, expected: list[str]) -> None:
    assert complete_change(incomplete) == expected
