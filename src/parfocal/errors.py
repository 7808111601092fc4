"""The errors that users can correct, and the phrases their messages share."""

import difflib
from collections.abc import Iterable

_MIN_SIMILARITY = 0.75


class ParfocalError(Exception):
    """The data or the run failed. Commands print the message and exit with 1."""

    exit_code = 1


class UsageError(ParfocalError):
    """A command, a parameter or a recipe is invalid. Commands print the message and exit with 2."""

    exit_code = 2


class UnreadableImageError(Exception):
    """The file is not a complete image. The message gives the reason."""


class ImageTooLargeError(UnreadableImageError):
    """The image has more pixels, or more decoded bytes, than the memory limit allows."""


def find_similar(name: str, valid_names: Iterable[str]) -> str | None:
    """Return the valid name that is most similar to a misspelled name, or None if none is similar enough."""
    candidates = {_normalize(valid): valid for valid in valid_names}
    normalized = _normalize(name)
    for candidate, valid in candidates.items():
        # Two swapped letters make a short name look unlike itself: 'sdg' and 'sgd' have a similarity of 0.67.
        if sorted(candidate) == sorted(normalized):
            return valid
    matches = difflib.get_close_matches(normalized, candidates, n=1, cutoff=_MIN_SIMILARITY)
    return candidates[matches[0]] if matches else None


def _normalize(name: str) -> str:
    return name.lower().replace("-", "_")


def did_you_mean(name: str, valid_names: Iterable[str]) -> str:
    """Return a hint for an invalid name: the most similar valid name, or all valid names."""
    valid_names = list(valid_names)
    similar = find_similar(name, valid_names)
    return f"Did you mean {similar!r}?" if similar else f"Valid are: {', '.join(valid_names)}."


def join_limited(items: Iterable[object], limit: int = 5) -> str:
    """Join the first items for a message and count the others: `a, b, c and 12 more`."""
    texts = [str(item) for item in items]
    first = ", ".join(texts[:limit])
    return first if len(texts) <= limit else f"{first} and {len(texts) - limit} more"
