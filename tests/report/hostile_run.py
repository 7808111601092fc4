"""A trained run whose names, in the data and of its folder, try to add markup and commands to reports."""

import json
import shutil
from pathlib import Path

from parfocal.run import Run

RUN_NAME = "![r](http:x) <b>|`y`;[link](u) # $z$"
CLASS_NAME = "[c](javascript:a) <img src=x> | **d** ```"
SOURCE = "<script> of ![s](s.png)\n\n# heading\n```\n"
DATA_FOLDER = "/data ``` $(rm)"


def make_hostile_run(run: Path, folder: Path) -> Run:
    """Copy a run of the classes normal and blast into a folder, with hostile names."""
    hostile = Run(folder / RUN_NAME)
    shutil.copytree(run, hostile.folder)
    for path in (*hostile.folder.glob("*.json"), *hostile.folder.glob("*/*.csv"), hostile.folder / "history.csv"):
        name = CLASS_NAME if path.suffix == ".csv" else json.dumps(CLASS_NAME)[1:-1]
        path.write_text(path.read_text(encoding="utf-8").replace("blast", name), encoding="utf-8")
    environment = hostile.read_environment()
    environment["data"] |= {"source": SOURCE, "folder": DATA_FOLDER}
    hostile.write_environment(environment)
    return hostile
