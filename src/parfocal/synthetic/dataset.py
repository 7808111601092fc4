"""Synthetic data sets in the formats of the two laboratories: patients, splits, images, masks and label files.

Image number i of a split depends on (seed, split, i) alone, never on the number of threads or the order of drawing.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from parfocal.data.encode import encode_image
from parfocal.data.masks import REGIONS_FILE
from parfocal.data.parallel import map_ordered
from parfocal.errors import ParfocalError, UsageError, did_you_mean
from parfocal.io import explain_write_errors
from parfocal.synthetic.fundus import LESION_NAMES, draw_eye, draw_fundus
from parfocal.synthetic.smears import CYTOPLASM, NUCLEUS, Patient, draw_cell, draw_patient, draw_signals

SMEAR_SHARES = {"train": 0.75, "valid": 0.15, "test": 0.10}
MIN_SMEARS = 40
# Few cells of each patient, so that every split has enough patients for a confidence interval.
CELLS_PER_PATIENT = 4
# About a fifth of the cells are from healthy patients. With the normal cells of leukemia patients, a third are normal.
HEALTHY_SHARE = 0.22

GRADE_SHARES = (0.735, 0.069, 0.150, 0.025, 0.021)
MIN_FUNDUS = 25


@dataclass(frozen=True)
class _Cell:
    name: str
    split: str
    number: int
    patient: Patient
    is_blast: bool


@dataclass(frozen=True)
class _Eye:
    name: str
    split: str
    patient: int
    side: str
    grade: int


def synthesize(kind: str, folder: Path | str, n_images: int | None = None, seed: int = 0) -> Path:
    """Draw the data set `kind` (`smear` or `fundus`) into a new folder and return the folder."""
    kinds: dict[str, tuple[Callable[..., Path], int]] = {
        "smear": (synthesize_smear, 1600),
        "fundus": (synthesize_fundus, 500),
    }
    if kind not in kinds:
        raise UsageError(f"There is no synthetic data set {kind!r}. {did_you_mean(kind, kinds)}")
    draw, default_n_images = kinds[kind]
    return draw(folder, default_n_images if n_images is None else n_images, seed)


def synthesize_smear(
    folder: Path | str, n_images: int = 1600, seed: int = 0, size: int = 450, workers: int | None = None
) -> Path:
    """Draw blood-smear cells in the format of the leukemia lab and return the folder.

    Write `train.csv` and `valid.csv` (Path,label), `resnet_*_test.csv` (Path), `test_truth.csv`, `patients.csv`
    (Path,patient), the images, and masks of the validation and test cells (127 cytoplasm, 255 nucleus) in `masks`.
    """
    _check_n_images(n_images, MIN_SMEARS)
    n_train = round(n_images * SMEAR_SHARES["train"])
    n_test = round(n_images * SMEAR_SHARES["test"])
    counts = {"train": n_train, "valid": n_images - n_train - n_test, "test": n_test}
    splits_with_masks = ("valid", "test")
    cells_by_split = {
        split: list(_make_cells(split, index, n_cells, seed)) for index, (split, n_cells) in enumerate(counts.items())
    }
    cells = list(chain(*cells_by_split.values()))

    def write(root: Path, cell: _Cell) -> None:
        rng = np.random.default_rng([seed, list(counts).index(cell.split), 1, cell.number])
        image, mask = draw_cell(cell.patient, draw_signals(cell.is_blast, rng), size, rng)
        _write_image(root / cell.name, image)
        if cell.split in splits_with_masks:
            _write_image(root / "masks" / cell.split / f"{cell.number}.png", mask)

    with _new_folder(Path(folder)) as root:
        for split in counts:
            (root / "new_dataset" / split).mkdir(parents=True)
        for split in splits_with_masks:
            (root / "masks" / split).mkdir(parents=True)
        regions = ((CYTOPLASM, "cytoplasm"), (NUCLEUS, "nucleus"))
        _write_csv(root / "masks" / REGIONS_FILE, ("value", "region"), regions)
        list(map_ordered(cells, lambda cell: write(root, cell), "Drawing smears", workers))
        for split, name in (("train", "train"), ("valid", "valid"), ("test", "test_truth")):
            rows = ((cell.name, int(cell.is_blast)) for cell in cells_by_split[split])
            _write_csv(root / f"{name}.csv", ("Path", "label"), rows)
        for network in (18, 50, 152):
            rows = ((cell.name,) for cell in cells_by_split["test"])
            _write_csv(root / f"resnet_{network}_test.csv", ("Path",), rows)
        _write_csv(root / "patients.csv", ("Path", "patient"), ((cell.name, cell.patient.name) for cell in cells))
    return Path(folder)


def synthesize_fundus(
    folder: Path | str, n_images: int = 500, seed: int = 0, size: int = 1024, workers: int | None = None
) -> Path:
    """Draw fundus photographs, about `size` pixels wide, in the format of the retinopathy lab and return the folder.

    Write `train_img.csv`, `train_label.csv`, `test_img.csv` and `test_label.csv` without headers, the images in
    `new_train` and `new_test`, and lesion masks in `masks` (1 microaneurysm, 2 hemorrhage, 3 exudate, 4 new vessel).
    """
    _check_n_images(n_images, MIN_FUNDUS)
    n_test = round(n_images * 0.2)
    counts = {"train": n_images - n_test, "test": n_test}
    patient_ids = np.random.default_rng([seed, 9]).permutation(np.arange(10, 10 + 3 * n_images))
    eyes = [
        *_make_eyes("train", counts["train"], patient_ids[:n_images], seed),
        *_make_eyes("test", counts["test"], patient_ids[n_images:], seed),
    ]

    def write(root: Path, eye: _Eye) -> None:
        is_left = eye.side == "left"
        both_eyes = draw_eye(np.random.default_rng([seed, 5, eye.patient]))
        rng = np.random.default_rng([seed, 6, eye.patient, int(is_left)])
        image, mask = draw_fundus(both_eyes, is_left, eye.grade, size, rng)
        _write_image(root / f"new_{eye.split}" / f"{eye.name}.jpeg", image, cv2.IMWRITE_JPEG_QUALITY, 92)
        _write_image(root / "masks" / f"{eye.name}.png", mask)

    with _new_folder(Path(folder)) as root:
        for name in ("new_train", "new_test", "masks"):
            (root / name).mkdir()
        _write_csv(root / "masks" / REGIONS_FILE, ("value", "region"), LESION_NAMES.items())
        list(map_ordered(eyes, lambda eye: write(root, eye), "Drawing fundus photographs", workers))
        for split in counts:
            eyes_of_split = [eye for eye in eyes if eye.split == split]
            _write_csv(root / f"{split}_img.csv", (), ((eye.name,) for eye in eyes_of_split))
            _write_csv(root / f"{split}_label.csv", (), ((eye.grade,) for eye in eyes_of_split))
    return Path(folder)


def _make_cells(split: str, split_index: int, n_cells: int, seed: int) -> Iterator[_Cell]:
    """Distribute the cells of a split over its patients, a quarter of whom are healthy."""
    rng = np.random.default_rng([seed, split_index, 0])
    n_patients = max(4, round(n_cells / CELLS_PER_PATIENT))
    n_healthy = max(2, round(n_patients / 4))
    patients = [draw_patient(f"{split}-{number:03d}", number >= n_healthy, rng) for number in range(n_patients)]
    # Every patient has a cell, and the first cell of a leukemia patient is a blast: each split then has both classes.
    is_healthy = np.arange(n_patients) < n_healthy
    shares = np.where(is_healthy, HEALTHY_SHARE / n_healthy, (1 - HEALTHY_SHARE) / (n_patients - n_healthy))
    patient_indices = np.concatenate([np.arange(n_patients), rng.choice(n_patients, n_cells - n_patients, p=shares)])
    is_blast = [
        patients[index].has_leukemia if number < n_patients else bool(rng.random() < patients[index].blast_share)
        for number, index in enumerate(patient_indices)
    ]
    for number, row in enumerate(rng.permutation(n_cells)):
        name = f"./new_dataset/{split}/{number}.bmp"
        yield _Cell(name, split, number, patients[patient_indices[row]], is_blast[row])


def _make_eyes(split: str, n_eyes: int, patient_ids: np.ndarray, seed: int) -> Iterator[_Eye]:
    """Distribute the grades of the retinopathy data over pairs of eyes; most pairs have the same grade twice."""
    rng = np.random.default_rng([seed, 7, n_eyes])
    grades = np.repeat(np.arange(len(GRADE_SHARES)), _apportion(n_eyes, GRADE_SHARES))
    grades = grades[np.argsort(grades + rng.normal(0, 0.5, n_eyes), kind="stable")]
    pairs = [grades[start : start + 2] for start in range(0, n_eyes, 2)]
    for row in rng.permutation(len(pairs)):
        sides = rng.permutation(["left", "right"])
        for side, grade in sorted(zip(sides, pairs[row], strict=False)):
            yield _Eye(f"{patient_ids[row]}_{side}", split, int(patient_ids[row]), str(side), int(grade))


def _apportion(total: int, shares: tuple[float, ...]) -> np.ndarray:
    """Split a total into whole numbers in proportion to the shares, each at least 1."""
    exact = np.array(shares) / sum(shares) * total
    counts = np.maximum(1, np.floor(exact)).astype(int)
    while counts.sum() < total:
        counts[np.argmax(exact - counts)] += 1
    counts[0] -= counts.sum() - total
    return counts


def _check_n_images(n_images: int, min_images: int) -> None:
    if n_images < min_images:
        raise UsageError(
            f"n_images={n_images} is too few for every split to have every class. Draw at least {min_images}."
        )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; it becomes `folder` if the block succeeds, and is deleted if not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParfocalError(f"{folder} is not empty. Choose a new folder, or delete it first.")
    temporary = folder.with_name(f".{folder.name}.part")
    with explain_write_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_image(path: Path, image: np.ndarray, *parameters: int) -> None:
    path.write_bytes(encode_image(image, path.suffix, parameters))


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    lines = [header, *rows] if header else rows
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
