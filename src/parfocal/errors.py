"""What goes wrong and is the user's to mend: one sentence that names the place, the value and the remedy."""

import difflib
from collections.abc import Iterable


class ParfocalError(Exception):
    """The data or the run failed; commands print the text and exit with 1."""

    exit_code = 1


class UsageError(ParfocalError):
    """The command or the recipe was written wrongly; commands print the text and exit with 2."""

    exit_code = 2


def did_you_mean(name: str, valid_names: Iterable[str]) -> str:
    """Say which valid words there are, the nearest one first: ` Did you mean 'epochs'?`."""
    choices = list(valid_names)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Valid are: {', '.join(choices)}."


def join_limited(items: Iterable[object], limit: int = 5) -> str:
    """Join the first few items for a message and count the rest: `a, b, c and 12 more`."""
    texts = [str(item) for item in items]
    shown = ", ".join(texts[:limit])
    return shown if len(texts) <= limit else f"{shown} and {len(texts) - limit} more"


class UnreadableImageError(Exception):
    """The file is not a whole image; the text says why."""


class ImageTooLargeError(UnreadableImageError):
    """The file declares a picture of more pixels, or more bytes once decoded, than memory is given for."""
