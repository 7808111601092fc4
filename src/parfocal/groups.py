"""What the groups of a data set are: patients, or something narrower or broader, or each image for itself."""

from collections.abc import Iterable
from typing import Literal

GroupKind = Literal["patients", "animals", "eyes", "studies", "slides", "lesions", "families", "groups", "images"]

SINGULAR: dict[GroupKind, str] = {
    "patients": "patient",
    "animals": "animal",
    "eyes": "eye",
    "studies": "study",
    "slides": "slide",
    "lesions": "lesion",
    "families": "family",
    "groups": "group",
    "images": "image",
}
"""The singular of each kind of group."""


def find_common_kind(kinds: Iterable[GroupKind]) -> GroupKind:
    """Return the kind of group that all runs or tables share; groups if they differ."""
    distinct = set(kinds)
    return distinct.pop() if len(distinct) == 1 else "groups"
