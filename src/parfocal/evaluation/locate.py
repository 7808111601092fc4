"""Finding a run's images from another folder than the one where training was started."""

from dataclasses import replace
from pathlib import Path

from parfocal.data.decode import get_container_file
from parfocal.data.table import Table
from parfocal.progress import print_line
from parfocal.run import Run


def locate_table(run: Run) -> Table:
    """Return a run's table with paths that lead to its images, as long as the data lie where they did.

    A table's paths are relative where the data's folder was named so. Where no image is found by them, they are taken
    from the data's folder or one above it, whichever training was started in.
    """
    table, data = Table.load(run), Path(run.read_environment()["data"]["folder"])
    if any(get_container_file(path).is_file() for path in table.paths):
        return table
    home = data if data.is_dir() else data.parent
    for folder in (home, *home.parents):
        # Another folder of the same name further up is not the run's data.
        below = (get_container_file(folder / path) for path in table.paths)
        if any(file.is_relative_to(home) and file.is_file() for file in below):
            print_line(f"The images of {run.name} are found from {folder}, where training was started.")
            return replace(table, rows=table.rows.assign(path=[str(folder / path) for path in table.rows["path"]]))
    return table
