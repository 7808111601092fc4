"""The positive class is chosen, or guessed from names that can only be negative; it never follows from the order."""

import pytest

from parfocal.errors import UsageError
from parfocal.evaluation.positive_class import is_surely_negative, resolve_positive_class
from parfocal.recipe_schema import EvaluationConfig

PLAIN = EvaluationConfig()


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("blast", "normal"), 0),
        (("all", "hem"), 0),
        (("hem", "all"), 1),
        (("0", "1"), 1),
        (("Normal cell", "Leukemia blast"), 1),
        (("disease", "no_DR"), 0),
        (("glioma", "no tumor"), 0),
        (("malignant", "benign"), 0),
        (("left", "right"), None),
        (("benign", "normal"), None),
        (("1", "2"), None),
        (("normal", "mild", "severe"), None),
    ],
)
def test_the_positive_class_is_guessed_from_sure_words_only(classes: tuple[str, ...], expected: int | None) -> None:
    assert resolve_positive_class("", PLAIN, classes) == expected


@pytest.mark.parametrize("name", ["abnormal", "not normal", "normal pressure hydrocephalus", "nodule", "chemo", ""])
def test_a_word_that_only_resembles_a_negative_one_is_not_sure(name: str) -> None:
    assert not is_surely_negative(name)


def test_it_is_chosen_by_name_or_code() -> None:
    assert resolve_positive_class("normal", PLAIN, ("normal", "blast"), ("0", "1")) == 0
    assert resolve_positive_class("1", PLAIN, ("normal", "blast"), ("0", "1")) == 1


@pytest.mark.parametrize(
    ("config", "classes", "fault"),
    [
        (PLAIN, ("normal", "blast"), "positive=blasts is not a class. Did you mean 'blast'"),
        (PLAIN, ("a", "b", "blasts"), "positive=blasts needs two classes, and there are 3"),
        (EvaluationConfig(ordered=True, referable=1), ("a", "b"), "positive=blasts contradicts referable=1"),
    ],
)
def test_a_choice_that_cannot_be_is_rejected(config: EvaluationConfig, classes: tuple[str, ...], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        resolve_positive_class("blasts", config, classes)
