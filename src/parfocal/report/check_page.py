"""One self-contained page of what a check of the data found, with the pictures it is about."""

from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from parfocal.data.decode import prepare_image
from parfocal.data.findings import SEVERITIES, Finding, sort_by_severity
from parfocal.data.parallel import map_ordered
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import UnreadableImageError
from parfocal.io import write_text
from parfocal.report.render import data_uri, render
from parfocal.schema import ImagesConfig

MAX_THUMBNAILS = 12
"""So many pictures are shown of each finding."""

MAX_IDS = 5000
"""So many ids are listed of each finding; the page says how many it leaves out."""

_THUMBNAIL_CONFIG = ImagesConfig(resize_mode="pad", size=96)


def write_check_page(path: Path, table: Table, findings: list[Finding]) -> None:
    """Write what was read and each finding, the worst first, with thumbnails of the images it names.

    The page asks for nothing from outside. Its size is bounded by the number of findings, not of images.
    """
    page = render(
        "check.html",
        source=table.source,
        images=len(table),
        classes=table.classes,
        splits=[_summarize_split(table, split) for split in table.splits],
        numbers={severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES},
        findings=_build_finding_contexts(table, sort_by_severity(findings)),
    )
    write_text(path, page)


def _summarize_split(table: Table, split: str) -> dict[str, Any]:
    rows = table.get_rows(split)
    return {
        "name": split,
        "images": len(rows),
        "groups": rows["group"].nunique(),
        "unlabelled": int((rows["label"] == UNKNOWN).sum()),
        "counts": list(table.count_classes(split).values()),
    }


def _build_finding_contexts(table: Table, findings: list[Finding]) -> list[dict[str, Any]]:
    """Return for each finding what the page says of it."""
    known = set(table.rows["id"])
    ids = [tuple(dict.fromkeys(finding.ids)) for finding in findings]
    pictured = [[one for one in named if one in known][:MAX_THUMBNAILS] for named in ids]
    wanted = table.rows[table.rows["id"].isin(set().union(*pictured))].drop_duplicates("id")
    pictures = _build_thumbnails(wanted, table.classes)
    return [
        {
            "finding": finding,
            "pictures": [pictures[one] for one in with_picture],
            "ids": named[:MAX_IDS],
            "count": len(named),
        }
        for finding, named, with_picture in zip(findings, ids, pictured, strict=True)
    ]


def _build_thumbnails(rows: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return for each id its label, its split, and a small JPEG as an address or the reason why there is none."""
    thumbnails = list(map_ordered(rows["path"].tolist(), _encode_thumbnail, "Drawing thumbnails"))
    labels = ["no label" if label == UNKNOWN else classes[label] for label in rows["label"]]
    return {
        one: {"id": one, "label": label, "split": split, "data": data, "reason": reason}
        for one, label, split, (data, reason) in zip(rows["id"], labels, rows["split"], thumbnails, strict=True)
    }


def _encode_thumbnail(path: str) -> tuple[str, str]:
    try:
        pixels, _ = prepare_image(Path(path), _THUMBNAIL_CONFIG)
    except UnreadableImageError as reason:
        return "", str(reason)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data_uri("jpeg", data.tobytes()), ""
