"""The test curve: the accuracy on the test split after each epoch, for the figure only; it chooses nothing."""

from collections.abc import Collection


def explain_missing_test_curve(splits: Collection[str], labeled_splits: Collection[str]) -> str:
    """Return why data with these splits have no test curve; empty if they have one."""
    if "test" not in splits:
        return "There is no test split, so there is no test curve."
    if "test" not in labeled_splits:
        return "The test split has no labels, so there is no test curve."
    return ""
