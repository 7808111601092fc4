"""Looking at every image once, to judge a data set: facts, fingerprint and trivia, keeping no pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from parfocal.data.decode import Facts, Unreadable, index_row, read_picture
from parfocal.data.likeness import fingerprint
from parfocal.data.passes import in_order
from parfocal.data.shortcuts import TRIVIA, trivia
from parfocal.data.table import Table
from parfocal.parts import ImagesPart


@dataclass(frozen=True)
class Examined:
    """What was seen, one row a file: the index of facts, fingerprints (0 for none), and trivia (NaN for none)."""

    index: pd.DataFrame
    fingerprints: np.ndarray
    trivia: np.ndarray


def examine(table: Table, images: ImagesPart, *, workers: int | None = None) -> Examined:
    """Decode every file of the table once and note what it shows."""
    paths = table.paths
    unknown = np.full(sum(map(len, TRIVIA.values())), np.nan, np.float32)

    def look(path: str) -> tuple[Facts | str, int, np.ndarray]:
        try:
            picture, facts = read_picture(Path(path), images)
        except Unreadable as reason:
            return str(reason), 0, unknown
        return facts, fingerprint(picture), trivia(picture, facts.bytes, facts.width, facts.height)

    seen = list(in_order(paths, look, "Checking", workers))
    index = pd.DataFrame([index_row(path, outcome) for path, (outcome, _, _) in zip(paths, seen, strict=True)])
    prints = np.array([one for _, one, _ in seen], dtype=np.uint64)
    return Examined(index, prints, np.stack([one for _, _, one in seen]))
