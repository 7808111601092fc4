"""Table: saved to a run and loaded again."""

from pathlib import Path

import pandas as pd

from parfocal.data.layouts import read
from parfocal.data.table import Table
from parfocal.run import Run


def test_a_table_is_the_same_after_saving_and_loading(cells: Path, tmp_path: Path) -> None:
    table = read(cells)
    run = Run(tmp_path / "run")
    table.save(run.table_path)
    run.write_environment(
        {
            "data": {
                "classes": list(table.classes),
                "codes": list(table.codes),
                "source": table.source,
                "groups_are": table.groups_are,
            }
        }
    )
    loaded = Table.load(run)
    pd.testing.assert_frame_equal(loaded.rows, table.rows, check_dtype=False)
    assert (loaded.classes, loaded.codes, loaded.submission_lists) == (
        table.classes,
        table.codes,
        table.submission_lists,
    )
