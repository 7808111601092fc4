"""Labels as they are written: the codes of the classes, and the labels that are missing or cannot be a class."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from parfocal.data.table import UNKNOWN, Table, natural_sort_key
from parfocal.errors import ParfocalError, UsageError

MISSING_WORDS = frozenset(
    ("nan", "na", "n/a", "#n/a", "<na>", "none", "null", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
)
"""What programs write where there is no value, in lower case."""

_MAX_GRADE = 9999
"""Classes that are counted from 0 or 1 have no larger number: it is an id, a date or a mistake."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_PLAIN_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


def parse_labels(texts: Sequence[str], get_place: Callable[[int], str]) -> tuple[list[int], tuple[str, ...]]:
    """Return the class index of each label, UNKNOWN if it is missing, and the codes of the classes in natural order.

    If all labels are numbers, words such as `nan` are missing labels, and a number that cannot be a class is an error
    that names its place. Among labels that are words, they are a class.
    """
    normalized = [normalize_label(text) for text in texts]
    codes = set(normalized) - {""}
    numbers = {code for code in codes if code.casefold() not in MISSING_WORDS}
    if numbers and all(map(_NUMBER.fullmatch, numbers)):
        invalid = _find_invalid_numbers(numbers)
        if invalid:
            position = next(position for position, code in enumerate(normalized) if code in invalid)
            raise ParfocalError(
                f"{get_place(position)}: the label is {texts[position].strip()}. If all labels are numbers, each must "
                f"be a whole number from 0 to {_MAX_GRADE}. Correct it, or leave it empty if the label is missing."
            )
        codes = numbers
    ordered = tuple(sorted(codes, key=natural_sort_key))
    class_index = {code: index for index, code in enumerate(ordered)}
    return [class_index.get(code, UNKNOWN) for code in normalized], ordered


def _find_invalid_numbers(numbers: set[str]) -> set[str]:
    """Return the numbers that cannot be a class: fractions, negative numbers, and numbers far beyond the others.

    The classes -1 and 1, and ids that are not counted from 0 or 1, are valid.
    """
    values = {code: float(code) for code in numbers}
    is_signed_pair = set(values.values()) == {-1, 1}
    maximum = _MAX_GRADE if {0, 1} & set(values.values()) else float("inf")
    return {
        code
        for code, value in values.items()
        if not value.is_integer() or (value < 0 and not is_signed_pair) or value > maximum
    }


def is_number(text: str) -> bool:
    """Return whether a label is written as a number."""
    return bool(_NUMBER.fullmatch(text))


def normalize_label(text: str) -> str:
    """Strip a label, and write a whole number without a fraction or an exponent: 1.0 becomes 1."""
    text = text.strip()
    if not _NUMBER.fullmatch(text) or (_PLAIN_INTEGER.fullmatch(text) and text != "-0"):
        return text
    value = float(text)
    return str(int(value)) if value.is_integer() else text


def resolve_class_names(
    codes: tuple[str, ...], chosen: tuple[str, ...], names: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the names of the classes in the order of the codes.

    `chosen` are the names of the recipe, and `names` those that the data has for its codes. Chosen names are new names,
    unless they are all names or all codes of the data: then the data keeps its names, and `order_classes` orders them.
    """
    names = names or codes
    if not chosen:
        return names
    if len(chosen) != len(codes):
        raise UsageError(
            f"classes names {len(chosen)} classes ({', '.join(chosen)}), but the data has {len(codes)} "
            f"({', '.join(codes)})."
        )
    spellings = {name.casefold(): name for name in chosen}
    if spellings.keys() == {name.casefold() for name in names}:
        return tuple(spellings[name.casefold()] for name in names)
    if set(chosen) == set(codes):
        return names
    if known := [name for name in chosen if name in (*codes, *names)]:
        raise UsageError(
            f"classes={','.join(chosen)} mixes new names with {', '.join(known)} of the data. List all of "
            f"{', '.join(names)} in the order that you want, or only new names."
        )
    return chosen


def order_classes(table: Table, chosen: tuple[str, ...]) -> Table:
    """Return the table with its classes in the order of the names or codes that the recipe lists, if it lists them."""
    known = next((names for names in (table.classes, table.codes) if set(names) == set(chosen)), ())
    order = [known.index(name) for name in chosen] if known else []
    if order == sorted(order):
        return table
    # The last entry is for UNKNOWN, which is -1.
    new_labels = np.append(np.argsort(order), UNKNOWN)
    return replace(
        table,
        rows=table.rows.assign(label=new_labels[table.rows["label"].to_numpy()]),
        classes=tuple(table.classes[label] for label in order),
        codes=tuple(table.codes[label] for label in order),
    )


def find_class_index(label: str, codes: tuple[str, ...], classes: tuple[str, ...], file: Path, line: int) -> int:
    """Return the index of the class of a label, which can be the code or the name of the class."""
    code = normalize_label(label)
    if code in codes:
        return codes.index(code)
    lowercase = [name.lower() for name in classes]
    if code.lower() in lowercase:
        return lowercase.index(code.lower())
    valid = ", ".join(code if code == name else f"{code} ({name})" for code, name in zip(codes, classes, strict=True))
    shown = repr(label) if label.strip() else "empty"
    raise ParfocalError(f"{file}, line {line}: the label is {shown}. Valid labels are {valid}.")
