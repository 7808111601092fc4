"""Hints and lists in error messages."""

import pytest

from parfocal.errors import did_you_mean, join_limited


@pytest.mark.parametrize(
    ("name", "expected"), [("epohcs", "epochs"), ("bacth", "batch"), ("Top-Epochs", "top_epochs"), ("sdg", "sgd")]
)
def test_the_hint_names_the_most_similar_valid_name(name: str, expected: str) -> None:
    assert did_you_mean(name, ["epochs", "batch", "top_epochs", "sgd"]) == f"Did you mean {expected!r}?"


@pytest.mark.parametrize("name", ["zzz", "lr", "epic"])
def test_the_hint_lists_all_valid_names_if_none_is_similar(name: str) -> None:
    assert did_you_mean(name, ["epochs", "batch"]) == "Valid are: epochs, batch."


def test_a_limited_list_counts_the_remaining_items() -> None:
    assert join_limited(range(3)) == "0, 1, 2"
    assert join_limited(range(8), limit=2) == "0, 1 and 6 more"
