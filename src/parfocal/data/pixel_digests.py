"""Digests of the decoded pixels of a run's images, kept in its table, so that a run resumes on the same images."""

import pandas as pd

from parfocal.data.store import Store
from parfocal.data.table import Table
from parfocal.errors import ParfocalError, join_limited
from parfocal.run import Run

_COLUMN = "pixels"


def list_pixel_digests(table: Table, store: Store) -> pd.Series:
    """Return the digest of the decoded image of each row, indexed by the id."""
    digests = store.index["digest"].to_numpy()[table.find_positions_in(store.index)]
    return pd.Series(digests, index=table.rows["id"].to_numpy(), name=_COLUMN)


def check_same_pixels(run: Run, digests: pd.Series) -> None:
    """Raise an error with the names of the images whose pixels changed since the run was started.

    The table of an older run has no digests. Its ids must be those of the digests, in the same order.
    """
    saved = pd.read_csv(run.table_path, dtype=str, keep_default_na=False)
    if _COLUMN not in saved:
        return
    changed = digests.index[digests.to_numpy() != saved[_COLUMN].to_numpy()]
    if len(changed):
        raise ParfocalError(
            f"{len(changed)} of {len(digests)} images have other pixels than when {run.folder} was started: "
            f"{join_limited(changed)}. Restore the files, or start a new run. If they are the same files, another "
            "version of OpenCV decodes them differently; environment.json lists the version to install."
        )
