"""Predictions put into a run's folder only when all that is made of them has been made."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from parfocal.evaluation.predictions import Predictions
from parfocal.files import atomic_write
from parfocal.run import Run


@contextmanager
def write_predictions(run: Run, predictions: Mapping[str, Predictions]) -> Iterator[dict[str, Predictions]]:
    """Yield predictions by split as their files will hold them; the files get their names if the block succeeds.

    Figures are taken of what is yielded, so that they can be taken anew from the files. Where the block refuses, those
    of before are still there.
    """
    with ExitStack() as files:
        held: dict[str, Predictions] = {}
        for split, one in predictions.items():
            beside = files.enter_context(atomic_write(run.predictions_path(split)))
            one.save(beside)
            held[split] = Predictions.load(beside)
        yield held
