"""The page of a data check: a self-contained HTML file with every finding and thumbnails of its images."""

from pathlib import Path
from typing import Any

from parfocal.data.checks import SEVERITIES, Finding, sort_by_severity
from parfocal.data.decode import prepare_image
from parfocal.data.encode import encode_jpeg
from parfocal.data.parallel import map_ordered
from parfocal.data.table import UNKNOWN, Table
from parfocal.errors import UnreadableImageError
from parfocal.io import write_text
from parfocal.recipe_schema import ImagesConfig
from parfocal.report.html import data_uri, render

MAX_THUMBNAILS = 12
"""How many thumbnails the page shows for each finding."""

MAX_IDS = 5000
"""How many ids the page lists for each finding; it says how many there are in all."""

_THUMBNAIL_CONFIG = ImagesConfig(resize_mode="pad", size=96)


def write_check_page(path: Path, table: Table, findings: list[Finding]) -> None:
    """Write what was read and every finding, errors first; the page grows with the findings, not with the images."""
    splits: list[dict[str, Any]] = []
    for split in table.splits:
        rows = table.get_rows(split)
        splits.append(
            {
                "name": split,
                "n_images": len(rows),
                "n_groups": rows["group"].nunique(),
                "n_unlabeled": int((rows["label"] == UNKNOWN).sum()),
                "counts": list(table.count_classes(split).values()),
            }
        )
    page = render(
        "check.html",
        source=table.source,
        n_images=len(table),
        classes=table.classes,
        groups_are=table.groups_are,
        splits=splits,
        n_findings={severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES},
        entries=_build_entries(table, sort_by_severity(findings)),
    )
    write_text(path, page)


def _build_entries(table: Table, findings: list[Finding]) -> list[dict[str, Any]]:
    """Return each finding with its ids and thumbnails: label, split, and the image or why it is unreadable."""
    known_ids = set(table.rows["id"])
    entries: list[dict[str, Any]] = []
    for finding in findings:
        ids = list(dict.fromkeys(finding.ids))
        shown = [image_id for image_id in ids if image_id in known_ids][:MAX_THUMBNAILS]
        entries.append({"finding": finding, "thumbnails": shown, "ids": ids[:MAX_IDS], "n_ids": len(ids)})
    shown_ids = {image_id for entry in entries for image_id in entry["thumbnails"]}
    rows = table.rows[table.rows["id"].isin(shown_ids)].drop_duplicates("id")
    images = map_ordered(rows["path"].tolist(), _encode_thumbnail, "Drawing thumbnails")
    labels = ["no label" if label == UNKNOWN else table.classes[label] for label in rows["label"]]
    thumbnails = {
        image_id: {"id": image_id, "label": label, "split": split, "image": image, "reason": reason}
        for image_id, label, split, (image, reason) in zip(rows["id"], labels, rows["split"], images, strict=True)
    }
    return [{**entry, "thumbnails": [thumbnails[image_id] for image_id in entry["thumbnails"]]} for entry in entries]


def _encode_thumbnail(path: str) -> tuple[str, str]:
    try:
        pixels, _ = prepare_image(Path(path), _THUMBNAIL_CONFIG)
    except UnreadableImageError as error:
        return "", str(error)
    return data_uri("jpeg", encode_jpeg(pixels)), ""
