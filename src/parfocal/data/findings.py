"""Finding: one fault or fact about a data set, how grave it is, whom it is about, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.schema import ALLOWABLE_FINDINGS

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""The gravest first."""


@dataclass(frozen=True)
class Finding:
    """One fault or fact: its code, what it says, the ids it is about, and what to do.

    Training refuses an error; a warning is printed; a note is only told.
    """

    severity: Severity
    code: str
    message: str
    ids: tuple[str, ...] = ()
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def make_error(code: str, message: str, ids: Iterable[str], remedy: str) -> Finding:
    """Return an error, with the waiver beside the remedy where there is one."""
    waiver = f", or accept it with allow={code}." if code in ALLOWABLE_FINDINGS else "."
    return Finding("error", code, message, tuple(ids), remedy + waiver)


def sort_by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings in the order of their severity, otherwise as they come."""
    return sorted(findings, key=lambda one: SEVERITIES.index(one.severity))


def apply_waivers(findings: Sequence[Finding], allow: tuple[str, ...]) -> list[Finding]:
    """Return the findings with those accepted knowingly turned from errors to warnings that say so."""
    return [
        Finding("warning", one.code, f"{one.message} Waived by allow={one.code}.", one.ids)
        if one.severity == "error" and one.code in allow
        else one
        for one in findings
    ]


def drop_rows(table: Table, findings: Sequence[Finding], code: str) -> Table:
    """Return the table less the rows that findings with a code are about."""
    return table.drop_ids({one for finding in findings if finding.code == code for one in finding.ids})


def raise_errors(findings: Sequence[Finding]) -> None:
    """Raise one error that lists every finding that training must not start with."""
    errors = [one for one in findings if one.severity == "error"]
    if errors:
        raise ParfocalError("\n".join(f"{one.message} {one.remedy}" for one in errors))
