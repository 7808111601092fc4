"""Whole synthetic data sets in the labs' own formats: patients, splits, images and label files.

Image number i of a split depends on (seed, split, i) alone, never on threads or order.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from parfocal.data.masks import REGIONS_FILE
from parfocal.data.parallel import map_ordered
from parfocal.errors import ParfocalError, UsageError, did_you_mean
from parfocal.io import explain_write_errors
from parfocal.synthetic.fundus import LESION_NAMES, draw_eye, draw_fundus
from parfocal.synthetic.smears import CYTOPLASM, NUCLEUS, Patient, draw_cell, draw_patient, draw_signals

SMEAR_SHARES = {"train": 0.75, "valid": 0.15, "test": 0.10}
MIN_SMEARS = 40
# Few of each patient, so that every split has patients enough for an interval.
CELLS_PER_PATIENT = 4
# A fifth of the cells come from healthy patients, so that with the normal cells of ill ones a third are normal.
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
    """Draw the set called `kind` (`smear` or `fundus`) into a new folder and return it."""
    kinds: dict[str, tuple[Callable[..., Path], int]] = {
        "smear": (synthesize_smear, 1600),
        "fundus": (synthesize_fundus, 500),
    }
    if kind not in kinds:
        raise UsageError(f"There is no synthetic set {kind!r}. {did_you_mean(kind, kinds)}")
    draw, usual = kinds[kind]
    return draw(folder, usual if n_images is None else n_images, seed)


def synthesize_smear(
    folder: Path | str, n_images: int = 1600, seed: int = 0, size: int = 450, workers: int | None = None
) -> Path:
    """Draw blood-smear cells as the leukemia lab hands them out, and return the folder.

    Writes `train.csv` and `valid.csv` (Path,label), `resnet_*_test.csv` (Path), `test_truth.csv`, `patients.csv`
    (Path,patient), the images, and masks of the validation and test cells (127 cytoplasm, 255 nucleus) in `masks`.
    """
    _check_n_images(n_images, MIN_SMEARS)
    train, test = round(n_images * SMEAR_SHARES["train"]), round(n_images * SMEAR_SHARES["test"])
    counts = {"train": train, "valid": n_images - train - test, "test": test}
    masked = ("valid", "test")
    cells = [
        cell for place, (split, count) in enumerate(counts.items()) for cell in _make_cells(split, place, count, seed)
    ]

    def write(root: Path, cell: _Cell) -> None:
        dice = np.random.default_rng([seed, list(counts).index(cell.split), 1, cell.number])
        image, mask = draw_cell(cell.patient, draw_signals(cell.is_blast, dice), size, dice)
        _write_image(root / cell.name, image)
        if cell.split in masked:
            _write_image(root / "masks" / cell.split / f"{cell.number}.png", mask)

    with _new_folder(Path(folder)) as root:
        for split in counts:
            (root / "new_dataset" / split).mkdir(parents=True)
        for split in masked:
            (root / "masks" / split).mkdir(parents=True)
        _write_csv(root / "masks" / REGIONS_FILE, ("value", "part"), ((CYTOPLASM, "cytoplasm"), (NUCLEUS, "nucleus")))
        for _ in map_ordered(cells, lambda cell: write(root, cell), "Drawing smears", workers):
            pass
        by_split = {split: [cell for cell in cells if cell.split == split] for split in counts}
        for split, name in (("train", "train"), ("valid", "valid"), ("test", "test_truth")):
            _write_csv(root / f"{name}.csv", ("Path", "label"), ((c.name, int(c.is_blast)) for c in by_split[split]))
        for network in (18, 50, 152):
            _write_csv(root / f"resnet_{network}_test.csv", ("Path",), ((cell.name,) for cell in by_split["test"]))
        _write_csv(root / "patients.csv", ("Path", "patient"), ((cell.name, cell.patient.name) for cell in cells))
    return Path(folder)


def synthesize_fundus(
    folder: Path | str, n_images: int = 500, seed: int = 0, size: int = 1024, workers: int | None = None
) -> Path:
    """Draw fundus photographs as the retinopathy lab hands them out, and return the folder.

    Writes `train_img.csv`, `train_label.csv`, `test_img.csv` and `test_label.csv` without headers, the images in
    `new_train` and `new_test`, and lesion masks in `masks` (1 microaneurysm, 2 haemorrhage, 3 exudate, 4 new vessel).
    `size` is about the width of the photographs.
    """
    _check_n_images(n_images, MIN_FUNDUS)
    test = round(n_images * 0.2)
    counts = {"train": n_images - test, "test": test}
    names = np.random.default_rng([seed, 9]).permutation(np.arange(10, 10 + 3 * n_images))
    eyes = [
        *_make_eyes("train", counts["train"], names[:n_images], seed),
        *_make_eyes("test", test, names[n_images:], seed),
    ]

    def write(root: Path, eye: _Eye) -> None:
        shared = draw_eye(np.random.default_rng([seed, 5, eye.patient]))
        dice = np.random.default_rng([seed, 6, eye.patient, int(eye.side == "left")])
        image, mask = draw_fundus(shared, eye.side == "left", eye.grade, size, dice)
        _write_image(root / f"new_{eye.split}" / f"{eye.name}.jpeg", image, cv2.IMWRITE_JPEG_QUALITY, 92)
        _write_image(root / "masks" / f"{eye.name}.png", mask)

    with _new_folder(Path(folder)) as root:
        for part in ("new_train", "new_test", "masks"):
            (root / part).mkdir()
        _write_csv(root / "masks" / REGIONS_FILE, ("value", "part"), LESION_NAMES.items())
        for _ in map_ordered(eyes, lambda eye: write(root, eye), "Drawing fundus photographs", workers):
            pass
        for split in counts:
            chosen = [eye for eye in eyes if eye.split == split]
            _write_csv(root / f"{split}_img.csv", (), ((eye.name,) for eye in chosen))
            _write_csv(root / f"{split}_label.csv", (), ((eye.grade,) for eye in chosen))
    return Path(folder)


def _make_cells(split: str, split_index: int, n_cells: int, seed: int) -> Iterator[_Cell]:
    """Deal the cells of a split to patients of its own, a quarter of them healthy."""
    dice = np.random.default_rng([seed, split_index, 0])
    several = max(4, round(n_cells / CELLS_PER_PATIENT))
    healthy = max(2, round(several / 4))
    patients = [draw_patient(f"{split}-{number:03d}", number >= healthy, dice) for number in range(several)]
    # Every patient has a cell, and the first cell of an ill one is a blast: each split then has both classes.
    shares = np.where(np.arange(several) < healthy, HEALTHY_SHARE / healthy, (1 - HEALTHY_SHARE) / (several - healthy))
    owners = np.concatenate([np.arange(several), dice.choice(several, n_cells - several, p=shares)])
    blasts = [
        patients[owner].has_leukemia if number < several else bool(dice.random() < patients[owner].blast_share)
        for number, owner in enumerate(owners)
    ]
    for number, row in enumerate(dice.permutation(n_cells)):
        name = f"./new_dataset/{split}/{number}.bmp"
        yield _Cell(name, split, number, patients[owners[row]], blasts[row])


def _make_eyes(split: str, n_eyes: int, patient_ids: np.ndarray, seed: int) -> Iterator[_Eye]:
    """Deal grades in the documents' mix to pairs of eyes, the two of a patient alike in most cases."""
    dice = np.random.default_rng([seed, 7, n_eyes])
    grades = np.repeat(np.arange(len(GRADE_SHARES)), _apportion(n_eyes, GRADE_SHARES))
    grades = grades[np.argsort(grades + dice.normal(0, 0.5, n_eyes), kind="stable")]
    pairs = [grades[start : start + 2] for start in range(0, n_eyes, 2)]
    for row in dice.permutation(len(pairs)):
        sides = dice.permutation(["left", "right"])
        for side, grade in sorted(zip(sides, pairs[row], strict=False)):
            yield _Eye(f"{patient_ids[row]}_{side}", split, int(patient_ids[row]), str(side), int(grade))


def _apportion(count: int, shares: tuple[float, ...]) -> np.ndarray:
    """Split a count by shares, exactly, with at least one for each."""
    wanted = np.array(shares) / sum(shares) * count
    parts = np.maximum(1, np.floor(wanted)).astype(int)
    while parts.sum() < count:
        parts[np.argmax(wanted - parts)] += 1
    parts[0] -= parts.sum() - count
    return parts


def _check_n_images(n_images: int, min_images: int) -> None:
    if n_images < min_images:
        raise UsageError(
            f"images={n_images} is too few for every split to have every class; give at least {min_images}."
        )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside that becomes `folder` if the block succeeds, and vanishes if not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParfocalError(f"{folder} is not empty. Choose a new folder, or delete it first.")
    draft = folder.with_name(f".{folder.name}.part")
    with explain_write_errors(folder):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _write_image(path: Path, image: np.ndarray, *settings: int) -> None:
    done, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image, settings)
    if not done:
        raise ParfocalError(f"{path} cannot be encoded.")
    path.write_bytes(data.tobytes())


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    lines = [header, *rows] if header else list(rows)
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
