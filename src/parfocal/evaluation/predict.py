"""Predict new images with trained networks and write a CSV with a row per image, holding few images in memory."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import TextIOBase
from itertools import islice
from pathlib import Path

import numpy as np

from parfocal.data.layouts.image_finder import IMAGE_SUFFIXES, find_images
from parfocal.data.layouts.sheets import read_sheet
from parfocal.data.parallel import catch_unreadable, map_ordered
from parfocal.engine.batches import EVALUATION_BATCH_SIZE
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.ensemble import MEMBERS_FILE
from parfocal.evaluation.predictor import Predictor, PreparedViews
from parfocal.evaluation.submission import SampleSubmission
from parfocal.io import atomic_write
from parfocal.run import find_runs

NamedFile = tuple[str, Path]
"""The id of an image in the predictions, and its path."""


@dataclass
class PredictResult:
    """What `predict` wrote: the file, the number of its rows, and the images that could not be read, with the reasons.

    `not_finite` lists the images with a probability that is not finite (NaN); they have no row.
    `flag_counts` holds the number of images with each flag of the run: positive, referred, unusual. `positive_name` is
    what positive means, "" if the run has no positive class.
    """

    path: Path
    run_names: tuple[str, ...]
    n_rows: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    flag_counts: dict[str, int] = field(default_factory=dict)
    positive_name: str = ""


def predict(
    runs: Path | str | Sequence[Path | str],
    sources: Path | str | Iterable[Path | str] | TextIOBase,
    out: Path | str,
    sample_submission: Path | str | None = None,
) -> PredictResult:
    """Predict image files, folders of images, CSV files with a column `Path`, or the paths in a text stream.

    The CSV has the columns id, predicted, a probability per class, and the flags of the run: `positive`, `referred`,
    and `unusual` with the unusual image features. Rows are in the order of the sources. The probabilities of runs
    are averaged. With a sample submission, only its images are predicted, and the file has its columns and rows.
    Images that cannot be read, or have a probability that is not finite, are left out and listed in the result.
    """
    if not isinstance(sources, TextIOBase):
        sources = [sources] if isinstance(sources, str | Path) else list(sources)
        inputs = sources if sample_submission is None else [*sources, sample_submission]
        if Path(out).resolve() in {Path(path).resolve() for path in inputs}:
            raise UsageError(f"out={out} is also an input and would be overwritten. Choose another file.")
    predictor = Predictor([runs] if isinstance(runs, str | Path) else list(runs))
    flag_counts = dict.fromkeys(predictor.flag_names, 0)
    result = PredictResult(
        Path(out), predictor.run_names, flag_counts=flag_counts, positive_name=predictor.positive_name
    )
    files = list_files(sources)
    if sample_submission is not None:
        sample = SampleSubmission.read(Path(sample_submission))
        files = list(files)
        names = sample.match_files({name: name for name, _ in files})
        requested = {names[image_id] for image_id in sample.ids if image_id in names}
        codes = dict(zip(predictor.classes, predictor.codes, strict=True))
        rows = _predict_rows(predictor, [file for file in files if file[0] in requested], result)
        predicted = sample.match_files({row[0]: codes[row[1]] for row in rows})
        sample.write(result.path, predicted, result.unreadable)
        result.n_rows = len(sample.ids)
        return result
    with atomic_write(result.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        probability_columns = [f"probability:{name}" for name in predictor.classes]
        writer.writerow(["id", "predicted", *probability_columns, *predictor.flag_names])
        for row in _predict_rows(predictor, files, result):
            writer.writerow(row)
            result.n_rows += 1
    return result


def _predict_rows(predictor: Predictor, files: Iterable[NamedFile], result: PredictResult) -> Iterator[list[str]]:
    """Yield the row of each image that can be predicted; record the others and count flags in the result."""
    prepare_or_explain = catch_unreadable(predictor.prepare)

    def prepare(image: NamedFile) -> tuple[str, PreparedViews | str]:
        name, file = image
        return name, prepare_or_explain(file)

    with closing(map_ordered(files, prepare, "Predicting")) as outcomes:
        while chunk := list(islice(outcomes, EVALUATION_BATCH_SIZE)):
            result.unreadable |= {name: reason for name, reason in chunk if isinstance(reason, str)}
            images = {index: image for index, (_, image) in enumerate(chunk) if not isinstance(image, str)}
            if not images:
                continue
            batch = predictor.predict(list(images.values()))
            names = np.array(predictor.classes, dtype=object)[batch.labels]
            is_finite = batch.is_finite
            for row, index in enumerate(images):
                if not is_finite[row]:
                    result.not_finite.append(chunk[index][0])
                    continue
                flags = [batch.flags[name][row] for name in predictor.flag_names]
                for name, flag in zip(predictor.flag_names, flags, strict=True):
                    result.flag_counts[name] += bool(flag)
                probabilities = [f"{value:.9g}" for value in batch.probabilities[row]]
                flag_cells = [flag if isinstance(flag, str) else str(int(flag)) for flag in flags]
                yield [chunk[index][0], names[row], *probabilities, *flag_cells]


def list_files(sources: Iterable[Path | str] | TextIOBase) -> Iterable[NamedFile]:
    """Return (id, path) of every image in the sources. The lines of a text stream are read only as they are needed."""
    if isinstance(sources, TextIOBase):
        paths = (line.rstrip("\r\n") for line in sources)
        return ((path, Path(path)) for path in paths if path)
    files: list[NamedFile] = []
    for source in map(Path, sources):
        if source.is_dir():
            images = find_images(source)
            if not images:
                raise ParfocalError(f"{source} contains no images ({', '.join(IMAGE_SUFFIXES)}).")
            files += [(str(path), path) for path in images]
        elif source.suffix.lower() == ".csv":
            files += [(path, source.parent / path) for path in read_sheet(source, ("Path",))["Path"]]
        else:
            files.append((str(source), source))
    return files


def split_runs_and_images(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into run folders, which come first, and images. The first argument always counts as a run."""
    n_runs = 1
    for path in map(Path, arguments[1:]):
        is_run = (path / MEMBERS_FILE).is_file() or (path / "recipe.yaml").is_file()
        if not path.is_dir() or not (is_run or find_runs(path)):
            break
        n_runs += 1
    return list(arguments[:n_runs]), list(arguments[n_runs:])
