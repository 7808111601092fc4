"""The page of a data check: one self-contained HTML file with every finding and thumbnails of its images."""

from pathlib import Path
from typing import Any

import pandas as pd

from parfocal.data.checks import SEVERITIES, Finding, sort_by_severity
from parfocal.data.decode import prepare_image
from parfocal.data.encode import encode_jpeg
from parfocal.data.parallel import map_ordered
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import UnreadableImageError
from parfocal.io import write_text
from parfocal.report.render import data_uri, render
from parfocal.schema import ImagesConfig

MAX_THUMBNAILS = 12
"""How many thumbnails the page shows for each finding."""

MAX_IDS = 5000
"""How many ids the page lists for each finding; it says how many there are in all."""

_THUMBNAIL_CONFIG = ImagesConfig(resize_mode="pad", size=96)


def write_check_page(path: Path, table: Table, findings: list[Finding]) -> None:
    """Write what was read and every finding, errors first, with thumbnails of its images.

    The page loads nothing from a server. Its size grows with the number of findings, not of images.
    """
    page = render(
        "check.html",
        source=table.source,
        n_images=len(table),
        classes=table.classes,
        splits=[_summarize_split(table, split) for split in table.splits],
        n_findings={severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES},
        entries=_build_entries(table, sort_by_severity(findings)),
    )
    write_text(path, page)


def _summarize_split(table: Table, split: str) -> dict[str, Any]:
    rows = table.get_rows(split)
    return {
        "name": split,
        "n_images": len(rows),
        "n_groups": rows["group"].nunique(),
        "n_unlabeled": int((rows["label"] == UNKNOWN).sum()),
        "counts": list(table.count_classes(split).values()),
    }


def _build_entries(table: Table, findings: list[Finding]) -> list[dict[str, Any]]:
    """Return each finding with its thumbnails and ids."""
    known_ids = set(table.rows["id"])
    ids_by_finding = [tuple(dict.fromkeys(finding.ids)) for finding in findings]
    shown_by_finding = [
        [image_id for image_id in ids if image_id in known_ids][:MAX_THUMBNAILS] for ids in ids_by_finding
    ]
    shown_rows = table.rows[table.rows["id"].isin(set().union(*shown_by_finding))].drop_duplicates("id")
    thumbnails = _build_thumbnails(shown_rows, table.classes)
    return [
        {
            "finding": finding,
            "thumbnails": [thumbnails[image_id] for image_id in shown],
            "ids": ids[:MAX_IDS],
            "n_ids": len(ids),
        }
        for finding, ids, shown in zip(findings, ids_by_finding, shown_by_finding, strict=True)
    ]


def _build_thumbnails(rows: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return for each id its label, its split, and a small JPEG as a data URI or the reason why it is unreadable."""
    thumbnails = map_ordered(rows["path"].tolist(), _encode_thumbnail, "Drawing thumbnails")
    labels = ["no label" if label == UNKNOWN else classes[label] for label in rows["label"]]
    return {
        image_id: {"id": image_id, "label": label, "split": split, "image": image, "reason": reason}
        for image_id, label, split, (image, reason) in zip(rows["id"], labels, rows["split"], thumbnails, strict=True)
    }


def _encode_thumbnail(path: str) -> tuple[str, str]:
    try:
        pixels, _ = prepare_image(Path(path), _THUMBNAIL_CONFIG)
    except UnreadableImageError as error:
        return "", str(error)
    return data_uri("jpeg", encode_jpeg(pixels)), ""
