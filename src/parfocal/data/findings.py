"""Finding: a problem or a fact of a data set, found while its labels are read or checked."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from parfocal.recipe_schema import ALLOWABLE_FINDINGS

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The most severe first."""


@dataclass(frozen=True)
class Finding:
    """A problem or a fact of a data set: its code, a message, the ids of the images, and the remedy.

    Training does not start with an error; a warning is printed; a note appears in the report of the check only.
    """

    severity: Severity
    code: str
    message: str
    ids: tuple[str, ...] = ()
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def make_error(code: str, message: str, ids: Iterable[str], remedy: str) -> Finding:
    """Return an error; its remedy also names the waiver, if the recipe key `allow` knows the code."""
    waiver = f", or accept it with allow={code}." if code in ALLOWABLE_FINDINGS else "."
    return Finding("error", code, message, tuple(ids), remedy + waiver)
