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

from parfocal.data.fundus import LESIONS, draw_eye, draw_fundus
from parfocal.data.masks import PARTS
from parfocal.data.passes import in_order
from parfocal.data.smear import CYTOPLASM, NUCLEUS, Patient, draw_cell, draw_patient, draw_signals
from parfocal.errors import ParfocalError, UsageError, nearest
from parfocal.files import explained

SMEAR_SHARES = {"train": 0.75, "valid": 0.15, "test": 0.10}
SMEARS_AT_LEAST = 40
# Few of each patient, so that every split has patients enough for an interval.
CELLS_PER_PATIENT = 4
# A fifth of the cells come from healthy patients, so that with the normal cells of ill ones a third are normal.
HEALTHY_SHARE = 0.22

GRADE_SHARES = (0.735, 0.069, 0.150, 0.025, 0.021)
FUNDUS_AT_LEAST = 25


@dataclass(frozen=True)
class _Cell:
    name: str
    split: str
    number: int
    patient: Patient
    blast: bool


@dataclass(frozen=True)
class _Eye:
    name: str
    split: str
    patient: int
    side: str
    grade: int


def synthesise(kind: str, folder: Path | str, images: int | None = None, seed: int = 0) -> Path:
    """Draw the set called `kind` (`smear` or `fundus`) into a new folder and return it."""
    kinds: dict[str, tuple[Callable[..., Path], int]] = {
        "smear": (synthesise_smear, 1600),
        "fundus": (synthesise_fundus, 500),
    }
    if kind not in kinds:
        raise UsageError(f"There is no synthetic set {kind!r}. {nearest(kind, kinds)}")
    draw, usual = kinds[kind]
    return draw(folder, usual if images is None else images, seed)


def synthesise_smear(
    folder: Path | str, images: int = 1600, seed: int = 0, size: int = 450, workers: int | None = None
) -> Path:
    """Draw blood-smear cells as the leukemia lab hands them out, and return the folder.

    Writes `train.csv` and `valid.csv` (Path,label), `resnet_*_test.csv` (Path), `test_truth.csv`, `patients.csv`
    (Path,patient), the images, and masks of the validation and test cells (127 cytoplasm, 255 nucleus) in `masks`.
    """
    _at_least(images, SMEARS_AT_LEAST)
    train, test = round(images * SMEAR_SHARES["train"]), round(images * SMEAR_SHARES["test"])
    counts = {"train": train, "valid": images - train - test, "test": test}
    masked = ("valid", "test")
    cells = [cell for place, (split, count) in enumerate(counts.items()) for cell in _cells(split, place, count, seed)]

    def write(root: Path, cell: _Cell) -> None:
        dice = np.random.default_rng([seed, list(counts).index(cell.split), 1, cell.number])
        image, mask = draw_cell(cell.patient, draw_signals(cell.blast, dice), size, dice)
        _write(root / cell.name, image)
        if cell.split in masked:
            _write(root / "masks" / cell.split / f"{cell.number}.png", mask)

    with _new_folder(Path(folder)) as root:
        for split in counts:
            (root / "new_dataset" / split).mkdir(parents=True)
        for split in masked:
            (root / "masks" / split).mkdir(parents=True)
        _write_csv(root / "masks" / PARTS, ("value", "part"), ((CYTOPLASM, "cytoplasm"), (NUCLEUS, "nucleus")))
        for _ in in_order(cells, lambda cell: write(root, cell), "Drawing smears", workers):
            pass
        by_split = {split: [cell for cell in cells if cell.split == split] for split in counts}
        for split, name in (("train", "train"), ("valid", "valid"), ("test", "test_truth")):
            _write_csv(root / f"{name}.csv", ("Path", "label"), ((c.name, int(c.blast)) for c in by_split[split]))
        for network in (18, 50, 152):
            _write_csv(root / f"resnet_{network}_test.csv", ("Path",), ((cell.name,) for cell in by_split["test"]))
        _write_csv(root / "patients.csv", ("Path", "patient"), ((cell.name, cell.patient.name) for cell in cells))
    return Path(folder)


def synthesise_fundus(
    folder: Path | str, images: int = 500, seed: int = 0, size: int = 1024, workers: int | None = None
) -> Path:
    """Draw fundus photographs as the retinopathy lab hands them out, and return the folder.

    Writes `train_img.csv`, `train_label.csv`, `test_img.csv` and `test_label.csv` without headers, the images in
    `new_train` and `new_test`, and lesion masks in `masks` (1 microaneurysm, 2 haemorrhage, 3 exudate, 4 new vessel).
    `size` is about the width of the photographs.
    """
    _at_least(images, FUNDUS_AT_LEAST)
    test = round(images * 0.2)
    counts = {"train": images - test, "test": test}
    names = np.random.default_rng([seed, 9]).permutation(np.arange(10, 10 + 3 * images))
    eyes = [*_eyes("train", counts["train"], names[:images], seed), *_eyes("test", test, names[images:], seed)]

    def write(root: Path, eye: _Eye) -> None:
        shared = draw_eye(np.random.default_rng([seed, 5, eye.patient]))
        dice = np.random.default_rng([seed, 6, eye.patient, int(eye.side == "left")])
        image, mask = draw_fundus(shared, eye.side == "left", eye.grade, size, dice)
        _write(root / f"new_{eye.split}" / f"{eye.name}.jpeg", image, cv2.IMWRITE_JPEG_QUALITY, 92)
        _write(root / "masks" / f"{eye.name}.png", mask)

    with _new_folder(Path(folder)) as root:
        for part in ("new_train", "new_test", "masks"):
            (root / part).mkdir()
        _write_csv(root / "masks" / PARTS, ("value", "part"), LESIONS.items())
        for _ in in_order(eyes, lambda eye: write(root, eye), "Drawing fundus photographs", workers):
            pass
        for split in counts:
            chosen = [eye for eye in eyes if eye.split == split]
            _write_csv(root / f"{split}_img.csv", (), ((eye.name,) for eye in chosen))
            _write_csv(root / f"{split}_label.csv", (), ((eye.grade,) for eye in chosen))
    return Path(folder)


def _cells(split: str, place: int, count: int, seed: int) -> Iterator[_Cell]:
    """Deal the cells of a split to patients of its own, a quarter of them healthy."""
    dice = np.random.default_rng([seed, place, 0])
    several = max(4, round(count / CELLS_PER_PATIENT))
    healthy = max(2, round(several / 4))
    patients = [draw_patient(f"{split}-{number:03d}", number >= healthy, dice) for number in range(several)]
    # Every patient has a cell, and the first cell of an ill one is a blast: each split then has both classes.
    shares = np.where(np.arange(several) < healthy, HEALTHY_SHARE / healthy, (1 - HEALTHY_SHARE) / (several - healthy))
    owners = np.concatenate([np.arange(several), dice.choice(several, count - several, p=shares)])
    blasts = [
        patients[owner].ill if number < several else bool(dice.random() < patients[owner].blast_share)
        for number, owner in enumerate(owners)
    ]
    for number, row in enumerate(dice.permutation(count)):
        name = f"./new_dataset/{split}/{number}.bmp"
        yield _Cell(name, split, number, patients[owners[row]], blasts[row])


def _eyes(split: str, count: int, names: np.ndarray, seed: int) -> Iterator[_Eye]:
    """Deal grades in the documents' mix to pairs of eyes, the two of a patient alike in most cases."""
    dice = np.random.default_rng([seed, 7, count])
    grades = np.repeat(np.arange(len(GRADE_SHARES)), _shared_out(count, GRADE_SHARES))
    grades = grades[np.argsort(grades + dice.normal(0, 0.5, count), kind="stable")]
    pairs = [grades[start : start + 2] for start in range(0, count, 2)]
    for row in dice.permutation(len(pairs)):
        sides = dice.permutation(["left", "right"])
        for side, grade in sorted(zip(sides, pairs[row], strict=False)):
            yield _Eye(f"{names[row]}_{side}", split, int(names[row]), str(side), int(grade))


def _shared_out(count: int, shares: tuple[float, ...]) -> np.ndarray:
    """Split a count by shares, exactly, with at least one for each."""
    wanted = np.array(shares) / sum(shares) * count
    parts = np.maximum(1, np.floor(wanted)).astype(int)
    while parts.sum() < count:
        parts[np.argmax(wanted - parts)] += 1
    parts[0] -= parts.sum() - count
    return parts


def _at_least(images: int, needed: int) -> None:
    if images < needed:
        raise UsageError(f"images={images} is too few for every split to have every class; give at least {needed}.")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside that becomes `folder` if the block succeeds, and vanishes if not."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParfocalError(f"{folder} is not empty. Choose a new folder, or delete it first.")
    draft = folder.with_name(f".{folder.name}.part")
    with explained(folder):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            yield draft
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _write(path: Path, image: np.ndarray, *settings: int) -> None:
    done, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 else image, settings)
    if not done:
        raise ParfocalError(f"{path} cannot be encoded.")
    path.write_bytes(data.tobytes())


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    lines = [header, *rows] if header else list(rows)
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
