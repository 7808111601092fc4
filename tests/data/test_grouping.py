"""Groups: a column of patients is found by its heading, and where no patient is known the table says so."""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parfocal.data.group_columns import find_heading
from parfocal.data.grouping import describe_groups
from parfocal.data.layouts import read
from parfocal.data.split import read_and_split
from parfocal.data.table import Table
from parfocal.errors import ParfocalError
from parfocal.recipe import load_recipe

N_PATIENTS = 35
PATIENTS = [f"K{row // 4:03d}" for row in range(4 * N_PATIENTS)]
N_IMAGES = len(PATIENTS)

HEADINGS = {
    **dict.fromkeys(
        [
            "patient", "patient_id", "subject", "subject_id", "case", "PatientID", "Patient ID", "patient-id",
            "Patient Number", "patient_no", "patient_name", "patient.id", "SubjectID", "subj", "case_id", "MRN",
            "medical_record_number", "participant", "participant_id", "person_id", "person", "ID_patient", "pid",
            "donor", "anonymised_id", "anon_id", "pseudonym", "volunteer", "individual", "nom_patient",
            "Patienten-ID", "paciente", "client_id",
        ],
        "patients",
    ),
    **dict.fromkeys(["animal", "mouse_id"], "animals"),
    **dict.fromkeys(["study_id", "StudyInstanceUID", "examination_id"], "studies"),
    **dict.fromkeys(["slide", "slide_id"], "slides"),
    **dict.fromkeys(["specimen", "image_group", "record_id", "hospital_id", "group", "group_id"], "groups"),
    "eye_id": "eyes",
    "lesion_id": "lesions",
    "family_id": "families",
}  # fmt: skip
NARROW = {"eye_id", "lesion_id", "slide", "slide_id", "specimen", "image_group", "record_id", "study_id"}
NARROW |= {"StudyInstanceUID", "examination_id"}


def _write(folder: Path, **columns: list[str]) -> Path:
    """Write a sheet of 140 images; return its path."""
    labels = [str(row % 2) for row in range(N_IMAGES)]
    rows = {"path": [f"{row:05d}.png" for row in range(N_IMAGES)], "label": labels, **columns}
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def _split(source: Path, **changes: object) -> Table:
    return read_and_split(source, load_recipe(None, **{"test": 0.2, **changes}))


def _count_divided(table: Table, groups: list[str] = PATIENTS) -> int:
    """Return how many patients are in more than one split, whatever the table takes for its groups."""
    return int((table.rows.assign(true=groups).groupby("true")["split"].nunique() > 1).sum())


def _codes(table: Table) -> set[str]:
    return {finding.code for finding in table.findings}


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_column_of_groups_is_found_by_its_heading(tmp_path: Path, heading: str) -> None:
    table = _split(_write(tmp_path, **{heading: PATIENTS}))
    assert _count_divided(table) == 0
    assert table.groups_are == HEADINGS[heading]
    assert _codes(table) == ({"narrow_groups"} if heading in NARROW else set())
    assert describe_groups(table) == f"Groups: 35 {table.groups_are} (column {heading!r})."


@pytest.mark.parametrize(
    "heading",
    ["image_id", "id", "filename", "name", "age", "sex", "patient_age", "eye_side", "study_date", "group_size", "ratio",
     "personality", "caseload", "notes", "diagnosis", "center", "animals_per_cage", "index", "number", "score"],
)  # fmt: skip
def test_other_headings_name_no_group(heading: str) -> None:
    assert find_heading(heading) is None


@pytest.mark.parametrize("other", ["eye_id", "family_id", "hospital_id", "group", "study_id", "lesion_id", "mouse_id"])
def test_the_column_of_the_person_wins(tmp_path: Path, other: str) -> None:
    parts = [f"{patient}-{row % 2}" for row, patient in enumerate(PATIENTS)]
    for columns in ({other: parts, "PatientID": PATIENTS}, {"PatientID": PATIENTS, other: parts}):
        table = _split(_write(tmp_path, **columns))
        assert table.groups_are == "patients"
        assert _count_divided(table) == 0


def test_a_column_with_a_different_value_in_each_row_counts_as_images(tmp_path: Path) -> None:
    counter = [str(row) for row in range(N_IMAGES)]
    table = _split(_write(tmp_path, pid=counter))
    assert (table.groups_are, _codes(table)) == ("images", {"no_patients"})
    assert "column 'pid' has a different value in each row" in table.findings[0].message
    assert "each image by itself (column 'pid' has a different value" in describe_groups(table)
    assert _split(_write(tmp_path, pid=counter, eye_id=PATIENTS)).groups_are == "eyes"


@pytest.mark.parametrize(
    ("heading", "values"),
    [("eye", ["left", "right"]), ("case", ["case", "control"]), ("animal", ["cat", "dog"]), ("patient", ["yes", "no"]),
     ("group", ["treated", "control"]), ("anonymized", ["true", "false"]), ("donor", ["0", "1"])],
)  # fmt: skip
def test_a_column_of_categories_is_not_taken_for_groups(tmp_path: Path, heading: str, values: list[str]) -> None:
    table = _split(_write(tmp_path, **{heading: [values[row % 2] for row in range(N_IMAGES)]}))
    assert (table.groups_are, _codes(table)) == ("images", {"no_patients"})


def test_hospitals_that_the_splits_of_the_data_divide_are_not_taken(tmp_path: Path) -> None:
    splits = ["train" if row % 4 else "valid" for row in range(N_IMAGES)]
    table = _split(_write(tmp_path, hospital_id=PATIENTS, split=splits))
    assert (table.groups_are, _codes(table)) == ("images", {"no_patients"})
    splits = ["train" if row < 100 else "valid" for row in range(N_IMAGES)]
    assert _split(_write(tmp_path, hospital_id=PATIENTS, split=splits)).groups_are == "groups"


def test_a_column_that_the_recipe_names_holds_patients(tmp_path: Path) -> None:
    source = _write(tmp_path, Mensch=PATIENTS, Alter=[str(20 + row % 50) for row in range(N_IMAGES)])
    table = _split(source)
    assert table.groups_are == "images"
    assert "columns with repeated values: 'Alter', 'Mensch'" in table.findings[0].remedy
    table = _split(source, group="Mensch")
    assert (table.groups_are, _codes(table), _count_divided(table)) == ("patients", set(), 0)


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (("K001", "K001 "), "K001"),
        (("K001", "k001"), "K001"),
        (("1", "1.0"), "1"),
        (("1.0", "1"), "1"),
        (("7", "007"), "7"),
    ],
)
def test_spellings_of_one_patient_are_one_group_and_a_warning(
    tmp_path: Path, spellings: tuple[str, str], name: str
) -> None:
    patients = [spellings[row % 2] if row < 8 else patient for row, patient in enumerate(PATIENTS)]
    table = _split(_write(tmp_path, patient=patients))
    assert set(table.rows["group"][:8]) == {name}
    assert table.rows["split"][:8].nunique() == 1
    (warning,) = table.findings
    assert (warning.severity, warning.code) == ("warning", "patient_spelling")
    assert f"{spellings[0]!r} = {spellings[1]!r}" in warning.message


@pytest.mark.parametrize("missing", ["", "  ", "nan", "NA", "unknown"])
def test_rows_without_a_patient_are_counted_and_are_groups_of_their_own(tmp_path: Path, missing: str) -> None:
    table = _split(_write(tmp_path, patient=[missing] * 12 + PATIENTS[12:]))
    assert table.rows["group"][:12].nunique() == 12
    (warning,) = table.findings
    assert (warning.code, len(warning.ids)) == ("missing_patients", 12)
    assert "12 of 140 rows have no patient (column 'patient')" in warning.message


def test_a_row_without_a_patient_is_not_the_patient_of_the_same_name(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": ["1", "2", "3", "4"], "label": [0, 1, 0, 1], "patient": ["2", "", "2", "2"]})
    rows.to_csv(tmp_path / "labels.csv", index=False)
    assert read(tmp_path).rows["group"].tolist() == ["2", "image 2", "2", "2"]


def test_a_split_by_image_is_accepted_or_ignores_the_patients(tmp_path: Path) -> None:
    table = _split(_write(tmp_path), **{"split.by": "image"})
    assert [(finding.severity, finding.code) for finding in table.findings] == [("note", "no_patients")]
    table = _split(_write(tmp_path, patient=PATIENTS), by="image")
    assert table.groups_are == "images"
    assert table.rows["group"].tolist() == table.rows["id"].tolist()
    (warning,) = table.findings
    assert (warning.severity, warning.code) == ("warning", "patients_ignored")
    assert "ignores the patients of the data (column 'patient')" in warning.message


def test_the_kind_of_groups_is_named_where_groups_are_divided(tmp_path: Path) -> None:
    from parfocal.data.checks import check_table

    table = read(_write(tmp_path, lesion_id=PATIENTS))
    splits = ["train" if row % 4 else "valid" for row in range(N_IMAGES)]
    found = check_table(replace(table, rows=table.rows.assign(split=splits)))
    (error,) = [finding for finding in found if finding.code == "patient_overlap"]
    assert error.message.startswith("35 lesions are in more than one split")
    assert "Keep each lesion in one split" in error.remedy


NAMES: dict[str, Callable[[np.random.Generator, int], str]] = {
    "letters": lambda rng, _: "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 8)),
    "hash": lambda rng, _: hashlib.sha256(rng.bytes(8)).hexdigest(),
    "uuid": lambda rng, _: str(uuid.UUID(bytes=rng.bytes(16), version=4)),
    "counter": lambda _, row: f"img_{row:05d}",
    "number": lambda _, row: str(row + 1),
    "camera": lambda rng, row: f"DSC{row + int(rng.integers(3)) * 1000:05d}",
    "time": lambda rng, row: f"IMG_202401{row % 28 + 1:02d}_{int(rng.integers(10**6)):06d}",
    "class": lambda rng, row: f"{'ab'[int(rng.integers(2))]}_{row}",
    "two parts": lambda rng, row: f"{rng.bytes(3).hex()}-{row}",
    "scan": lambda _, row: f"scan-{row}-of-many",
}


@pytest.mark.parametrize("kind", NAMES)
def test_tables_without_patients_never_claim_to_know_them(tmp_path: Path, kind: str) -> None:
    for seed in range(22):
        rng = np.random.default_rng(seed)
        n_images = int(rng.integers(20, 200))
        names = list(dict.fromkeys(f"{NAMES[kind](rng, row)}.png" for row in range(n_images)))
        rows = pd.DataFrame({"image": names, "label": rng.integers(0, 3, len(names))})
        if seed % 2:
            rows["age"] = rng.integers(20, 90, len(names))
            rows["sex"] = rng.choice(["m", "f"], len(names))
            rows["eye"] = rng.choice(["OD", "OS"], len(names))
            rows["case_id"] = range(len(names))
            rows["score"] = rng.random(len(names)).round(3)
        rows.to_csv(tmp_path / "labels.csv", index=False)
        table = read(tmp_path / "labels.csv")
        assert (table.groups_are, _codes(table)) == ("images", {"no_patients"})
        assert "columns.group_from" not in table.findings[0].remedy, table.findings[0].remedy


def test_a_column_that_does_not_exist_is_an_error_in_every_layout(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ParfocalError, match=r"has no column 'who' \(columns\.group\)"):
        read(tmp_path, group="who")
