"""Reading new images with trained networks: any number of files in, one row each out, pixels of a few at a time."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import TextIOBase
from itertools import chain, islice
from pathlib import Path

import numpy as np

from parfocal.data.decode import Unreadable
from parfocal.data.layouts.places import IMAGE_SUFFIXES, images_below
from parfocal.data.layouts.sheets import sheet
from parfocal.data.passes import in_order
from parfocal.errors import ParfocalError, UsageError
from parfocal.evaluation.answering import Answering, Look
from parfocal.evaluation.ensemble import MEMBERS
from parfocal.evaluation.inference import EVALUATION_BATCH
from parfocal.evaluation.submission import Sample
from parfocal.files import whole
from parfocal.run import runs_in

Named = tuple[str, Path]
"""An image: what it is called in the answers, and where it lies."""

Row = list[str]


@dataclass
class Outcome:
    """What `predict` did: the file it wrote, how many rows it holds, and the images it could not read, with reasons.

    `flagged` counts the images that are positive, referred to a human, or unusual, as far as that was asked.
    """

    path: Path
    networks: tuple[str, ...]
    count: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    flagged: dict[str, int] = field(default_factory=dict)


def predict(
    runs: Path | str | Sequence[Path | str],
    sources: Path | str | Iterable[Path | str] | TextIOBase,
    out: Path | str,
    sample: Path | str | None = None,
) -> Outcome:
    """Predict image files, folders of them, CSV files with a column `Path`, or the paths that a text stream tells.

    The CSV has the columns id, predicted, one probability for each class, and what the run decided to tell beside:
    `positive`, `referred`, and `unusual` with the measures that are out of the ordinary. Rows are in the order given.
    Of several runs the mean is taken. With a `sample` submission the file has its columns and rows instead. Images that
    cannot be read are left out and listed in the outcome.
    """
    if not isinstance(sources, TextIOBase):
        sources = [sources] if isinstance(sources, str | Path) else list(sources)
        _refuse_overwriting(Path(out), [*sources, *([sample] if sample is not None else [])])
    answering = Answering([runs] if isinstance(runs, str | Path) else list(runs))
    outcome = Outcome(Path(out), answering.names)
    if sample is not None:
        wanted = Sample.read(Path(sample))
        codes = dict(zip(answering.classes, answering.codes, strict=True))
        rows = _rows(answering, named_files(sources), outcome)
        answers = wanted.of_files({row[0]: codes[row[1]] for row in rows})
        wanted.write(outcome.path, answers, outcome.unreadable)
        outcome.count = len(wanted.ids)
        return outcome
    with whole(outcome.path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_heading(answering))
        for row in _rows(answering, named_files(sources), outcome):
            writer.writerow(row)
            outcome.count += 1
    return outcome


def _refuse_overwriting(out: Path, read: Sequence[Path | str]) -> None:
    """Refuse to write the answers in place of what they are made from."""
    if out.resolve() in {Path(one).resolve() for one in read}:
        raise UsageError(f"-o {out} is read here, and would be overwritten. Name another file.")


def _heading(answering: Answering) -> Row:
    decision = answering.decision
    flags = {"positive": answering.asks, "referred": decision.referral, "unusual": decision.ordinary}
    told = [name for name, asked in flags.items() if asked]
    return ["id", "predicted", *(f"probability:{name}" for name in answering.classes), *told]


def _rows(answering: Answering, files: Iterable[Named], outcome: Outcome) -> Iterator[Row]:
    """Yield the row of each image that can be read, and note the others and what is flagged."""
    outcome.flagged = dict.fromkeys(_heading(answering)[2 + len(answering.classes) :], 0)
    with closing(in_order(files, _looker(answering), "Predicting")) as looked_at:
        while chunk := list(islice(looked_at, EVALUATION_BATCH)):
            outcome.unreadable |= {one: reason for one, reason in chunk if isinstance(reason, str)}
            good = [(one, look) for one, look in chunk if not isinstance(look, str)]
            if good:
                yield from _answered(answering, good, outcome.flagged)


def _answered(answering: Answering, good: Sequence[tuple[str, Look]], flagged: dict[str, int]) -> Iterator[Row]:
    answers = answering.answer([look for _, look in good])
    names = np.array(answering.classes, dtype=object)[answers.labels]
    for number, (one, look) in enumerate(good):
        row = [one, names[number], *(f"{value:.9g}" for value in answers.probabilities[number])]
        for name, told in (("positive", answers.positive), ("referred", answers.referred)):
            if told is not None:
                row.append(str(int(told[number])))
                flagged[name] += bool(told[number])
        if "unusual" in flagged:
            row.append(" ".join(look.unusual))
            flagged["unusual"] += bool(look.unusual)
        yield row


def _looker(answering: Answering) -> Callable[[Named], tuple[str, Look | str]]:
    def look(image: Named) -> tuple[str, Look | str]:
        try:
            return image[0], answering.look(image[1])
        except Unreadable as reason:
            return image[0], str(reason)

    return look


def named_files(sources: Iterable[Path | str] | TextIOBase) -> Iterable[Named]:
    """Return (id, path) of every image that the sources name; those of a text stream one by one, as they come."""
    if isinstance(sources, TextIOBase):
        paths = (line.rstrip("\r\n") for line in sources)
        return ((path, Path(path)) for path in paths if path)
    return list(chain.from_iterable(_named(Path(source)) for source in sources))


def _named(source: Path) -> list[Named]:
    if source.is_dir():
        below = images_below(source)
        if not below:
            raise ParfocalError(f"{source} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
        return [(str(path), path) for path in below]
    if source.suffix.lower() == ".csv":
        return [(one, source.parent / one) for one in sheet(source, ("Path",))["Path"]]
    return [(str(source), source)]


def told_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part words into the runs that lead and the images that follow; the first word is taken for a run in any case."""
    runs = 1
    while runs < len(words) and _holds_runs(Path(words[runs])):
        runs += 1
    return list(words[:runs]), list(words[runs:])


def _holds_runs(path: Path) -> bool:
    return path.is_dir() and ((path / MEMBERS).is_file() or (path / "recipe.yaml").is_file() or bool(runs_in(path)))
