"""Shell completion of recipes, networks and recipe keys."""

import pytest

from parfocal.commands.completion import complete_change, complete_recipe


def test_recipes_are_completed() -> None:
    assert complete_recipe("leuk") == ["leukemia", "leukemia-adam", "leukemia-sgd"]
    assert complete_recipe("au") == ["auto"]


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
