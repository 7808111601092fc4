"""Patterns that find the patient in the name or path of an image: read those of the recipe, and propose others.

A pattern is a regular expression, or plain text with placeholders: `P{patient}_{image}.png`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parfocal.data.group_columns import find_heading
from parfocal.errors import ParfocalError, UsageError, join_limited
from parfocal.groups import GroupKind

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_LATERALITY = {"left", "right", "l", "r", "od", "os", "ou"}
_SEPARATORS = re.compile(r"([_\-. ]+)")
# A date or a UUID has parts that repeat, and names nobody.
_DATE_OR_UUID = re.compile(r"(?<!\d)(19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?!\d)|[0-9a-f]{8}-[0-9a-f]{4}-", re.IGNORECASE)
_MIN_GROUPS = 6
_MIN_MEAN_SIZE = 1.5
_MAX_MEAN_SIZE = 50
_MIN_REPEATED_SHARE = 0.8
_MIN_PAIRED_SHARE = 0.2
_MAX_GROUP_SHARE = 1 / 3
_MAX_PARTS = 3
_MAX_FOLDERS = 2


@dataclass(frozen=True)
class GroupPattern:
    """A compiled pattern: the kind of its groups, and whether a patient can have more than 1 of them."""

    expression: re.Pattern[str]
    group: int | str
    kind: GroupKind
    is_narrow: bool

    def find(self, text: str) -> str | None:
        """Return the name of the group in a text, or None."""
        match = self.expression.search(text)
        return (match[self.group] or "") if match else None


def compile_pattern(pattern: str) -> GroupPattern:
    """Compile a value of columns.group_from; raise a UsageError if it is not valid.

    A plain pattern matches whole names at the end of a path: `{patient}/{image}` matches `blast/P012/1.png`, where the
    patient is `P012`. Each placeholder takes as little as it can, and never a slash.
    """
    text = _translate_plain(pattern) if _PLACEHOLDER.search(pattern) else pattern
    try:
        expression = re.compile(text)
    except re.error as error:
        raise UsageError(f"columns.group_from={pattern!r} is not a regular expression: {error}.") from None
    named = [(heading, name) for name in expression.groupindex if (heading := find_heading(name))]
    if text != pattern and not named:
        raise UsageError(f"columns.group_from={pattern!r} has no placeholder for the patient. Write {{patient}}.")
    if not named:
        return GroupPattern(expression, 1 if expression.groups else 0, "patients", is_narrow=False)
    persons = [pair for pair in named if pair[0].kind == "patients"]
    heading, name = (persons or named)[0]
    return GroupPattern(expression, name, heading.kind, heading.is_narrow)


def _translate_plain(pattern: str) -> str:
    """Return the regular expression of a plain pattern; a placeholder that is repeated must match the same text."""
    pieces = _PLACEHOLDER.split(pattern)
    seen: set[str] = set()
    text = ""
    for position, piece in enumerate(pieces):
        if position % 2 == 0:
            text += re.escape(piece)
        elif piece in seen:
            text += f"(?P={piece})"
        else:
            seen.add(piece)
            text += f"(?P<{piece}>[^/]+?)"
    return rf"(?:^|/){text}$"


def extract_groups(pattern: str, ids: Sequence[str], locations: Sequence[str]) -> tuple[list[str], GroupPattern]:
    """Return the group of each image by a pattern, which is searched in the ids.

    Where it does not match all ids, it is searched in the locations, which are the paths below the data folder.
    """
    compiled = compile_pattern(pattern)
    found = [compiled.find(image_id) for image_id in ids]
    if None in found:
        in_locations = [compiled.find(location) for location in locations]
        if in_locations.count(None) < found.count(None) or None not in in_locations:
            found, ids = in_locations, locations
    unmatched = [image_id for image_id, name in zip(ids, found, strict=True) if name is None]
    if unmatched:
        raise ParfocalError(
            f"columns.group_from={pattern!r} finds no group in {len(unmatched)} ids: {join_limited(unmatched)}."
        )
    return [name for name in found if name is not None], compiled


def propose_patterns(locations: Sequence[str]) -> list[str]:
    """Return how to set columns.group_from where names or folders look like patients: repeated, few images each."""
    proposals: list[str] = []
    for candidates in (_list_folder_patterns(locations), _list_name_patterns(locations)):
        for pattern, min_share in candidates:
            compiled = compile_pattern(pattern)
            groups = [name for location in locations if (name := compiled.find(location))]
            if len(groups) == len(locations) and _look_like_patients(groups, min_share):
                proposals.append(
                    f'Set columns.group_from="{pattern}" if {groups[0]!r} in {locations[0]!r} is a patient; there are '
                    f"{len(set(groups))}."
                )
                break
    return proposals


def _look_like_patients(groups: Sequence[str], min_repeated_share: float) -> bool:
    sizes = Counter(groups)
    repeated = sum(size for size in sizes.values() if size > 1)
    mean_size = len(groups) / len(sizes)
    is_paired = min_repeated_share < _MIN_REPEATED_SHARE
    return (
        len(sizes) >= _MIN_GROUPS
        and (is_paired or mean_size >= _MIN_MEAN_SIZE)
        and mean_size <= _MAX_MEAN_SIZE
        and repeated >= min_repeated_share * len(groups)
        and max(sizes.values()) <= _MAX_GROUP_SHARE * len(groups)
    )


def _list_folder_patterns(locations: Sequence[str]) -> Iterator[tuple[str, float]]:
    depth = min((location.count("/") for location in locations), default=0)
    for level in range(1, min(depth, _MAX_FOLDERS) + 1):
        yield "/".join(["{patient}", *["{folder}"] * (level - 1), "{image}"]), _MIN_REPEATED_SHARE


def _list_name_patterns(locations: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield patterns for the varying pieces of the file names, the first piece first."""
    stems = [location.rpartition("/")[2].rpartition(".")[0] or location for location in locations]
    if any(_DATE_OR_UUID.search(stem) for stem in stems):
        return
    pieces = [_SEPARATORS.split(stem) for stem in stems]
    n_parts = min(len(row) for row in pieces) // 2 + 1
    prefix = ""
    for index in range(min(n_parts - 1, _MAX_PARTS)):
        values = {row[2 * index] for row in pieces}
        separators = {row[2 * index + 1] for row in pieces}
        if len(separators) > 1:
            return
        separator = separators.pop()
        if len(values) > 1:
            rest = {row[-1].lower() for row in pieces}
            is_paired = len(rest) > 1 and rest <= _LATERALITY
            yield f"{prefix}{{patient}}{separator}{{image}}", _MIN_PAIRED_SHARE if is_paired else _MIN_REPEATED_SHARE
        prefix += f"{values.pop() if len(values) == 1 else f'{{part{chr(97 + index)}}}'}{separator}"
