"""What error texts are made of."""

from parfocal.errors import listing, nearest


def test_nearest_names_the_word_that_was_meant() -> None:
    assert nearest("epohcs", ["epochs", "batch"]) == "Did you mean 'epochs'?"


def test_nearest_lists_what_is_valid_when_nothing_is_near() -> None:
    assert nearest("zzz", ["epochs", "batch"]) == "Valid are: epochs, batch."


def test_listing_counts_what_it_leaves_out() -> None:
    assert listing(range(3)) == "0, 1, 2"
    assert listing(range(8), limit=2) == "0, 1 and 6 more"
