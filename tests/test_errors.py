"""What error texts are made of."""

from parfocal.errors import did_you_mean, join_limited


def test_nearest_names_the_word_that_was_meant() -> None:
    assert did_you_mean("epohcs", ["epochs", "batch"]) == "Did you mean 'epochs'?"


def test_nearest_lists_what_is_valid_when_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["epochs", "batch"]) == "Valid are: epochs, batch."


def test_listing_counts_what_it_leaves_out() -> None:
    assert join_limited(range(3)) == "0, 1, 2"
    assert join_limited(range(8), limit=2) == "0, 1 and 6 more"
