"""From what the data writes for a class to its index, or to an error with the line and the valid words."""

import re
from collections.abc import Iterable
from pathlib import Path

from parfocal.errors import ParfocalError, UsageError

DR_GRADES = ("no DR", "mild", "moderate", "severe", "proliferative")
"""Names of the grades 0 to 4 of diabetic retinopathy."""


def natural_sort_key(text: str) -> list[tuple[int, float, str]]:
    """Return a key that sorts as people count: 1, 2, 10, and names beside numbers without complaint."""
    parts = re.split(r"(\d+)", text.casefold())
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in parts if part]


def find_codes(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the different codes in natural order, numbers written as whole ones where they are."""
    return tuple(sorted({_normalize_code(text) for text in texts if text.strip()}, key=natural_sort_key))


def resolve_class_names(codes: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classes: those given, in the order of the codes, or else the codes."""
    if not names:
        return codes
    if len(names) != len(codes):
        raise UsageError(
            f"classes names {len(names)} classes ({', '.join(names)}), the data has {len(codes)} ({', '.join(codes)})."
        )
    return names


def find_class_index(text: str, codes: tuple[str, ...], classes: tuple[str, ...], file: Path, line: int) -> int:
    """Turn what the data writes into the index of a class; it may write the code or the name."""
    word = _normalize_code(text)
    if word in codes:
        return codes.index(word)
    lowered = [name.lower() for name in classes]
    if word.lower() in lowered:
        return lowered.index(word.lower())
    meanings = ", ".join(
        code if code == name else f"{code} ({name})" for code, name in zip(codes, classes, strict=True)
    )
    shown = repr(text) if text.strip() else "empty"
    raise ParfocalError(f"{file}, line {line}: the label is {shown}. Valid are {meanings}.")


def _normalize_code(text: str) -> str:
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip())
