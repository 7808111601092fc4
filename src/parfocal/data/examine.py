"""Looking at every image once, to judge a data set: facts, fingerprint and trivia, keeping no pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from parfocal.data.decode import ImageInfo, UnreadableImageError, build_index_row, read_image
from parfocal.data.likeness import perceptual_hash
from parfocal.data.passes import map_ordered
from parfocal.data.shortcuts import SHORTCUT_FEATURES, compute_shortcut_features
from parfocal.data.table import Table
from parfocal.parts import ImagesConfig


@dataclass(frozen=True)
class ImageStats:
    """What was seen, one row a file: the index of facts, fingerprints (0 for none), and trivia (NaN for none)."""

    index: pd.DataFrame
    perceptual_hashes: np.ndarray
    shortcut_features: np.ndarray


def compute_image_stats(table: Table, config: ImagesConfig, *, workers: int | None = None) -> ImageStats:
    """Decode every file of the table once and note what it shows."""
    paths = table.paths
    unknown = np.full(sum(map(len, SHORTCUT_FEATURES.values())), np.nan, np.float32)

    def look(path: str) -> tuple[ImageInfo | str, int, np.ndarray]:
        try:
            picture, facts = read_image(Path(path), config)
        except UnreadableImageError as reason:
            return str(reason), 0, unknown
        return (
            facts,
            perceptual_hash(picture),
            compute_shortcut_features(picture, facts.bytes, facts.width, facts.height),
        )

    seen = list(map_ordered(paths, look, "Checking", workers))
    index = pd.DataFrame([build_index_row(path, outcome) for path, (outcome, _, _) in zip(paths, seen, strict=True)])
    prints = np.array([one for _, one, _ in seen], dtype=np.uint64)
    return ImageStats(index, prints, np.stack([one for _, _, one in seen]))
