"""Finding: an error, a warning or a note about a data set, with the images it is about and the remedy."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.schema import ALLOWABLE_FINDINGS

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


def sort_by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort the findings, the most severe first; equally severe ones keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def apply_waivers(findings: Sequence[Finding], allow: tuple[str, ...]) -> list[Finding]:
    """Turn the errors that the recipe accepts (`allow`) into warnings that say so."""
    return [
        Finding("warning", finding.code, f"{finding.message} Waived by allow={finding.code}.", finding.ids)
        if finding.severity == "error" and finding.code in allow
        else finding
        for finding in findings
    ]


def drop_rows(table: Table, findings: Sequence[Finding], code: str) -> Table:
    """Return the table without the rows that findings with this code are about."""
    return table.drop_ids({image_id for finding in findings if finding.code == code for image_id in finding.ids})


def raise_errors(findings: Sequence[Finding]) -> None:
    """Raise one ParfocalError that lists every error among the findings, if there is any."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise ParfocalError("\n".join(f"{finding.message} {finding.remedy}" for finding in errors))
