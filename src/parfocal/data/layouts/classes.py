"""Class codes and names of a data set: sort codes, name classes, and turn a label into the index of its class."""

import re
from collections.abc import Iterable
from pathlib import Path

from parfocal.errors import ParfocalError, UsageError

DR_GRADES = ("no DR", "mild", "moderate", "severe", "proliferative")
"""Names of the grades 0 to 4 of diabetic retinopathy."""


def natural_sort_key(text: str) -> list[tuple[int, float, str]]:
    """Return a key that sorts numbers in a text by value: 1, 2, 10."""
    pieces = re.split(r"(\d+)", text.casefold())
    return [(0, float(piece), "") if piece.isdecimal() else (1, 0.0, piece) for piece in pieces if piece]


def find_codes(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct codes in natural order; whole numbers such as 1.0 become 1."""
    return tuple(sorted({_normalize_code(label) for label in labels if label.strip()}, key=natural_sort_key))


def resolve_class_names(codes: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classes in the order of the codes: `names` if there are any, else the codes."""
    if not names:
        return codes
    if len(names) != len(codes):
        raise UsageError(
            f"classes names {len(names)} classes ({', '.join(names)}), but the data has {len(codes)} "
            f"({', '.join(codes)})."
        )
    return names


def find_class_index(label: str, codes: tuple[str, ...], classes: tuple[str, ...], file: Path, line: int) -> int:
    """Return the index of the class of a label, which can be the code or the name of the class."""
    code = _normalize_code(label)
    if code in codes:
        return codes.index(code)
    lowercase = [name.lower() for name in classes]
    if code.lower() in lowercase:
        return lowercase.index(code.lower())
    valid = ", ".join(code if code == name else f"{code} ({name})" for code, name in zip(codes, classes, strict=True))
    shown = repr(label) if label.strip() else "empty"
    raise ParfocalError(f"{file}, line {line}: the label is {shown}. Valid labels are {valid}.")


def _normalize_code(label: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", label.strip())
