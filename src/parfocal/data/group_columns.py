"""Find the column of the patient, or of another kind of group, by the words that people and DICOM write above it."""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pandas as pd

from parfocal.groups import GroupKind

MISSING = {"", "nan", "na", "n/a", "none", "null", "unknown", "?", "-"}
"""What people write, in lower case, where they do not know the patient."""


@dataclass(frozen=True)
class Heading:
    """Words for a kind of group, separated by spaces.

    `is_narrow`: a patient can have more than 1 of these groups. `is_broad`: such a group holds many patients.
    `is_ambiguous`: the words are also headings of categories, such as case and control.
    """

    kind: GroupKind
    words: str
    is_narrow: bool = False
    is_broad: bool = False
    is_ambiguous: bool = True


_HEADINGS = (
    Heading(
        "patients",
        "patient patienten paciente paziente subject subj participant proband person pid mrn medicalrecord",
        is_ambiguous=False,
    ),
    Heading("patients", "case individual volunteer donor client anon anonymised anonymized pseudonym"),
    Heading("animals", "animal mouse rat"),
    Heading("families", "family household pedigree", is_broad=True),
    Heading("groups", "group"),
    Heading("studies", "study examination exam encounter visit accession", is_narrow=True),
    Heading("groups", "record specimen biopsy series imagegroup", is_narrow=True),
    Heading("slides", "slide wsi", is_narrow=True),
    Heading("eyes", "eye", is_narrow=True),
    Heading("lesions", "lesion nodule", is_narrow=True),
    Heading("groups", "hospital", is_broad=True),
)
"""The kinds of groups, the best for a split first: a person, then what holds whole persons, then parts of a person."""

# What people write before or after the word: patient_no, nom_patient, StudyInstanceUID.
_AFFIXES = (
    "identifier", "instance", "numero", "nummer", "number", "index", "name", "code", "uuid", "guid", "nom", "ids",
    "idx", "key", "num", "uid", "id", "no", "nr", "s",
)  # fmt: skip
_WHOLE_NUMBER = re.compile(r"0*(\d+?)(?:\.0+)?")
_DECIMAL = re.compile(r"-?\d*\.\d*[1-9]\d*")
_BOOLEANS = {"0", "1", "true", "false", "yes", "no", "y", "n", "t", "f"}
# A column with fewer values is more likely a category, such as left and right, or dog and cat.
_MIN_VALUES = 6
_MAX_MEAN_SIZE = 50
_MAX_CANDIDATES = 3


@dataclass(frozen=True)
class GroupColumn:
    """A column that names the group of each row."""

    name: str
    heading: Heading


def find_heading(name: str) -> Heading | None:
    """Return the kind of group that a heading names, in any case, with any separators; None for other headings."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    return _find_by_letters(re.sub(r"[\W_]+|\d+$", "", letters))


def _find_by_letters(letters: str) -> Heading | None:
    for heading in _HEADINGS:
        if letters in heading.words.split():
            return heading
    for affix in _AFFIXES:
        shorter = (
            [letters.removesuffix(affix)]
            if affix == "s"
            else [letters.removesuffix(affix), letters.removeprefix(affix)]
        )
        for rest in shorter:
            if rest not in ("", letters) and (heading := _find_by_letters(rest)):
                return heading
    return None


def find_group_columns(rows: pd.DataFrame, used: Collection[str]) -> list[GroupColumn]:
    """Return the columns that name groups, the best for a split first; `used` columns hold something else.

    A column with a different value in each row comes last: it says nothing that the rows do not say.
    """
    found: list[tuple[bool, int, GroupColumn]] = []
    for name in rows.columns:
        heading = None if name in used else find_heading(str(name))
        if heading is None:
            continue
        values = list_known_values(rows[name])
        if not values or set(values) <= _BOOLEANS:
            continue
        n_distinct = len(set(values))
        if heading.is_ambiguous and n_distinct < _MIN_VALUES:
            continue
        found.append((n_distinct == len(values), _HEADINGS.index(heading), GroupColumn(name, heading)))
    ordered = [column for *_, column in sorted(found, key=lambda item: item[:2])]
    # Where each person has a single image, persons of the same family or hospital may be on both sides.
    if any(is_distinct and column.heading.kind == "patients" for is_distinct, _, column in found):
        ordered = [column for column in ordered if not column.heading.is_broad]
    return ordered


def list_repeated_columns(rows: pd.DataFrame, used: Collection[str]) -> tuple[str, ...]:
    """Return the columns whose values repeat as those of patients would, the smallest groups first."""
    sizes: dict[str, float] = {}
    for name in rows.columns:
        if name in used:
            continue
        values = set(rows[name])
        mean_size = len(rows) / max(len(values), 1)
        if len(values) < _MIN_VALUES or not 1 < mean_size <= _MAX_MEAN_SIZE:
            continue
        if not any(_DECIMAL.fullmatch(value) for value in values):
            sizes[str(name)] = mean_size
    return tuple(sorted(sizes, key=lambda name: sizes[name])[:_MAX_CANDIDATES])


def list_known_values(values: Iterable[object]) -> list[str]:
    """Return the values that are not missing, each under its normal spelling."""
    normalized = (normalize_name(str(value)) for value in values)
    return [value for value in normalized if value]


def normalize_name(name: str) -> str:
    """Return the spelling under which names of the same group are equal; an empty string if the name is missing.

    `K001`, `k001` and `K001 ` are equal, and so are `1`, `1.0` and `001`: sheet programs change them.
    """
    text = (name if name.isascii() else unicodedata.normalize("NFKC", name)).strip().casefold()
    if text in MISSING:
        return ""
    number = _WHOLE_NUMBER.fullmatch(text)
    return number[1] if number else text
