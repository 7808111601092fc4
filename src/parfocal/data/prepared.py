"""Data that is ready to train on or to judge: checked, prepared, and less what its recipe leaves out knowingly."""

from dataclasses import dataclass

from parfocal.data.check import check_table
from parfocal.data.check_images import check_pixels
from parfocal.data.finding import Finding, apply_waivers, drop_rows, raise_errors
from parfocal.data.store import Store, prepare
from parfocal.data.table import Table
from parfocal.progress import print_line
from parfocal.recipe import Recipe


@dataclass(frozen=True)
class PreparedData:
    """Data that is ready: its rows, its pixels, and what was found on the way."""

    table: Table
    store: Store
    findings: tuple[Finding, ...]


def check_and_prepare(table: Table, recipe: Recipe) -> PreparedData:
    """Check and prepare a table; refuse faults that the recipe does not waive, and leave out what it waives."""
    allow = recipe.data.allow
    findings = apply_waivers(check_table(table), allow)
    raise_errors(findings)
    table = _drop_waived_rows(table, findings, "missing_files", allow)
    store = prepare(table, recipe.images)
    seen = apply_waivers(check_pixels(table, store.index), allow)
    raise_errors(seen)
    table = _drop_waived_rows(table, seen, "unreadable_images", allow)
    findings += seen
    for one in findings:
        if one.severity == "warning":
            print_line(f"Warning: {one.message}")
    return PreparedData(table, store, tuple(findings))


def _drop_waived_rows(table: Table, findings: list[Finding], code: str, allow: tuple[str, ...]) -> Table:
    """Leave out the rows of waived findings; refuse what remains if it lacks a split, or all classes but one."""
    rest = drop_rows(table, findings, code)
    if len(rest) < len(table):
        raise_errors(apply_waivers(check_table(rest), allow))
    return rest
