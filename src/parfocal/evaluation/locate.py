"""Locate the images of a run, even from another working directory than that of its training."""

from dataclasses import replace
from pathlib import Path

from parfocal.data.decode import get_container_file
from parfocal.data.table import Table
from parfocal.progress import print_line
from parfocal.run import Run


def locate_table(run: Run) -> Table:
    """Return the table of a run with paths that lead to its images, if the data were not moved.

    The paths of a table are relative if the data folder was given as a relative path. If none of them exists from here,
    they are tried from the data folder and from each folder above it, where training may have been started.
    """
    table = Table.load(run)
    if any(get_container_file(path).is_file() for path in table.paths):
        return table
    data = Path(run.read_environment()["data"]["folder"])
    home = data if data.is_dir() else data.parent
    for folder in (home, *home.parents):
        # A folder of the same name further up does not hold the data of this run.
        files = (get_container_file(folder / path) for path in table.paths)
        if any(file.is_relative_to(home) and file.is_file() for file in files):
            print_line(f"The images of {run.name} are read relative to {folder}, where training was started.")
            return replace(table, rows=table.rows.assign(path=[str(folder / path) for path in table.rows["path"]]))
    return table
