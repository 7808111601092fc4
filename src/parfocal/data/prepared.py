"""Data that is ready to train on or to judge: checked, prepared, and less what its recipe leaves out knowingly."""

from dataclasses import dataclass

from parfocal.data.check import check_table
from parfocal.data.check_images import check_pixels
from parfocal.data.finding import Finding, left_out, refuse, waived
from parfocal.data.store import Store, prepare
from parfocal.data.table import Table
from parfocal.progress import say
from parfocal.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """Data that is ready: its rows, its pixels, and what was found on the way."""

    table: Table
    store: Store
    findings: tuple[Finding, ...]


def made_ready(table: Table, recipe: Recipe) -> Prepared:
    """Check and prepare a table; refuse faults that the recipe does not waive, and leave out what it waives."""
    allow = recipe.data.allow
    findings = waived(check_table(table), allow)
    refuse(findings)
    table = _less(table, findings, "missing_files", allow)
    store = prepare(table, recipe.images)
    seen = waived(check_pixels(table, store.index), allow)
    refuse(seen)
    table = _less(table, seen, "unreadable_images", allow)
    findings += seen
    for one in findings:
        if one.severity == "warning":
            say(f"Warning: {one.text}")
    return Prepared(table, store, tuple(findings))


def _less(table: Table, findings: list[Finding], code: str, allow: tuple[str, ...]) -> Table:
    """Leave out the rows of waived findings; refuse what remains if it lacks a split, or all classes but one."""
    rest = left_out(table, findings, code)
    if len(rest) < len(table):
        refuse(waived(check_table(rest), allow))
    return rest
