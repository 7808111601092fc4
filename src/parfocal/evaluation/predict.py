"""Reading new images with trained networks: any number of files in, one row each out, pixels of a few at a time."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import TextIOBase
from itertools import chain, islice
from pathlib import Path

import numpy as np

from parfocal.data.layouts.image_finder import IMAGE_SUFFIXES, find_images
from parfocal.data.layouts.sheets import read_sheet
from parfocal.data.parallel import map_ordered
from parfocal.engine.batches import EVALUATION_BATCH_SIZE
from parfocal.errors import ParfocalError, UnreadableImageError, UsageError
from parfocal.evaluation.ensemble import MEMBERS_FILE
from parfocal.evaluation.predictor import Predictor, PreparedViews
from parfocal.evaluation.submission import SampleSubmission
from parfocal.io import atomic_write
from parfocal.run import find_runs

NamedFile = tuple[str, Path]
"""An image: what it is called in the answers, and where it lies."""

Row = list[str]


@dataclass
class PredictResult:
    """What `predict` did: the file it wrote, how many rows it holds, and the images it could not read, with reasons.

    `flagged` counts the images that are positive, referred to a human, or unusual, as far as that was asked.
    """

    path: Path
    run_names: tuple[str, ...]
    n_rows: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    flag_counts: dict[str, int] = field(default_factory=dict)


def predict(
    runs: Path | str | Sequence[Path | str],
    sources: Path | str | Iterable[Path | str] | TextIOBase,
    out: Path | str,
    sample_submission: Path | str | None = None,
) -> PredictResult:
    """Predict image files, folders of them, CSV files with a column `Path`, or the paths that a text stream tells.

    The CSV has the columns id, predicted, one probability for each class, and what the run decided to tell beside:
    `positive`, `referred`, and `unusual` with the measures that are out of the ordinary. Rows are in the order given.
    Of several runs the mean is taken. With a `sample` submission the file has its columns and rows instead. Images that
    cannot be read are left out and listed in the outcome.
    """
    if not isinstance(sources, TextIOBase):
        sources = [sources] if isinstance(sources, str | Path) else list(sources)
        _check_not_overwriting(Path(out), [*sources, *([sample_submission] if sample_submission is not None else [])])
    answering = Predictor([runs] if isinstance(runs, str | Path) else list(runs))
    outcome = PredictResult(Path(out), answering.run_names)
    if sample_submission is not None:
        wanted = SampleSubmission.read(Path(sample_submission))
        codes = dict(zip(answering.classes, answering.codes, strict=True))
        rows = _predict_rows(answering, list_files(sources), outcome)
        answers = wanted.match_files({row[0]: codes[row[1]] for row in rows})
        wanted.write(outcome.path, answers, outcome.unreadable)
        outcome.n_rows = len(wanted.ids)
        return outcome
    with atomic_write(outcome.path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_build_heading(answering))
        for row in _predict_rows(answering, list_files(sources), outcome):
            writer.writerow(row)
            outcome.n_rows += 1
    return outcome


def _check_not_overwriting(out: Path, inputs: Sequence[Path | str]) -> None:
    """Refuse to write the answers in place of what they are made from."""
    if out.resolve() in {Path(one).resolve() for one in inputs}:
        raise UsageError(f"-o {out} is read here, and would be overwritten. Name another file.")


def _build_heading(predictor: Predictor) -> Row:
    decision = predictor.decision
    flags = {"positive": predictor.has_positive_class, "referred": decision.referral, "unusual": decision.ood}
    told = [name for name, asked in flags.items() if asked]
    return ["id", "predicted", *(f"probability:{name}" for name in predictor.classes), *told]


def _predict_rows(predictor: Predictor, files: Iterable[NamedFile], result: PredictResult) -> Iterator[Row]:
    """Yield the row of each image that can be read, and note the others and what is flagged."""
    result.flag_counts = dict.fromkeys(_build_heading(predictor)[2 + len(predictor.classes) :], 0)
    with closing(map_ordered(files, _make_preparer(predictor), "Predicting")) as looked_at:
        while chunk := list(islice(looked_at, EVALUATION_BATCH_SIZE)):
            result.unreadable |= {one: reason for one, reason in chunk if isinstance(reason, str)}
            good = [(one, look) for one, look in chunk if not isinstance(look, str)]
            if good:
                yield from _predict_chunk(predictor, good, result.flag_counts)


def _predict_chunk(
    predictor: Predictor, prepared: Sequence[tuple[str, PreparedViews]], flag_counts: dict[str, int]
) -> Iterator[Row]:
    answers = predictor.predict([look for _, look in prepared])
    names = np.array(predictor.classes, dtype=object)[answers.labels]
    for number, (one, look) in enumerate(prepared):
        row = [one, names[number], *(f"{value:.9g}" for value in answers.probabilities[number])]
        for name, told in (("positive", answers.is_positive), ("referred", answers.is_referred)):
            if told is not None:
                row.append(str(int(told[number])))
                flag_counts[name] += bool(told[number])
        if "unusual" in flag_counts:
            row.append(" ".join(look.unusual_features))
            flag_counts["unusual"] += bool(look.unusual_features)
        yield row


def _make_preparer(predictor: Predictor) -> Callable[[NamedFile], tuple[str, PreparedViews | str]]:
    def look(image: NamedFile) -> tuple[str, PreparedViews | str]:
        try:
            return image[0], predictor.prepare(image[1])
        except UnreadableImageError as reason:
            return image[0], str(reason)

    return look


def list_files(sources: Iterable[Path | str] | TextIOBase) -> Iterable[NamedFile]:
    """Return (id, path) of every image that the sources name; those of a text stream one by one, as they come."""
    if isinstance(sources, TextIOBase):
        paths = (line.rstrip("\r\n") for line in sources)
        return ((path, Path(path)) for path in paths if path)
    return list(chain.from_iterable(_list_files_of(Path(source)) for source in sources))


def _list_files_of(source: Path) -> list[NamedFile]:
    if source.is_dir():
        below = find_images(source)
        if not below:
            raise ParfocalError(f"{source} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
        return [(str(path), path) for path in below]
    if source.suffix.lower() == ".csv":
        return [(one, source.parent / one) for one in read_sheet(source, ("Path",))["Path"]]
    return [(str(source), source)]


def split_runs_and_images(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part words into the runs that lead and the images that follow; the first word is taken for a run in any case."""
    runs = 1
    while runs < len(arguments) and _contains_runs(Path(arguments[runs])):
        runs += 1
    return list(arguments[:runs]), list(arguments[runs:])


def _contains_runs(path: Path) -> bool:
    return path.is_dir() and (
        (path / MEMBERS_FILE).is_file() or (path / "recipe.yaml").is_file() or bool(find_runs(path))
    )
