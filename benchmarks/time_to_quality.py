"""Processor minutes until a network reaches a given accuracy and quadratic kappa: Parfocal and other trainers.

The test images are carved from the training split, with identical images together, and choose nothing. Each trainer
trains for several lengths with several seeds. Each training is a process of its own, whose result is kept in `--out`:
an interrupted benchmark goes on when it is started again. Minutes are processor time of all threads and worker
processes, from image files to the trained network, without imports; the wall time is in the results as well.
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.carving import write_carved_labels
from benchmarks.finetuning import OURS, TRAINERS, Setting, Stopwatch, read_split
from benchmarks.machine import RESULTS, describe_commit, describe_machine, run_in_subprocess, save_results
from benchmarks.peers import import_peer
from benchmarks.quality import compute_quality
from benchmarks.time_to_quality_report import compute_ratios, save_curves, summarize, write_page
from parfocal.io import write_json


@dataclass(frozen=True)
class Trial:
    """A single training: a trainer and what it is given."""

    trainer: str
    setting: Setting

    @property
    def length(self) -> str:
        """How long it trains, for tables."""
        setting = self.setting
        return f"minutes={setting.minutes:g}" if setting.minutes else f"{setting.epochs} epochs, {setting.side} px"

    @property
    def name(self) -> str:
        """The name of its file of results; other changes of the recipe give another name."""
        setting = self.setting
        recipe = setting.recipe if self.trainer == OURS else ""
        digest = hashlib.sha256(" ".join(setting.changes).encode()).hexdigest()[:6] if setting.changes else ""
        parts = (self.trainer, setting.start, self.length, f"seed {setting.seed}", recipe, digest)
        return "-".join(filter(None, parts)).replace(", ", "-").replace(" ", "-")


def list_trials(
    labels: Path,
    starts: dict[str, Path | None],
    trainers: Sequence[str],
    lengths: Sequence[tuple[int, int]],
    minutes: Sequence[float],
    seeds: Sequence[int],
    recipe: str = "auto",
    changes: Sequence[str] = (),
) -> list[Trial]:
    """List all trainings; those of the first seed come first, and short ones before long ones.

    `lengths` are the epochs and the side of the images for all trainers but Parfocal, whose lengths are `minutes`.
    """
    trials: list[Trial] = []
    for seed, weights in itertools.product(seeds, starts.values()):
        for epochs, side in lengths:
            for trainer in trainers:
                if trainer != OURS:
                    setting = Setting(labels, weights, seed, epochs, TRAINERS[trainer].side or side)
                    trials.append(Trial(trainer, setting))
        if OURS in trainers:
            settings = [
                Setting(labels, weights, seed, minutes=budget, recipe=recipe, changes=tuple(changes))
                for budget in sorted(minutes)
            ]
            trials += [Trial(OURS, setting) for setting in settings]
    return trials


def measure(trial: Trial) -> dict[str, Any]:
    """Train once and predict the test images; return minutes and metrics."""
    trainer = TRAINERS[trial.trainer]
    version = import_peer(trainer.package)
    training = Stopwatch()
    whole = Stopwatch()
    predict = trainer.train(trial.setting, training)
    whole.stop()
    if training.minutes is None or whole.minutes is None:
        raise RuntimeError(f"{trial.trainer} did not say when its network was trained.")
    _, labels, _ = read_split(trial.setting.labels, "test")
    return {
        "trainer": trial.trainer,
        "version": version,
        "start": trial.setting.start,
        "length": trial.length,
        "seed": trial.setting.seed,
        "recipe": trial.setting.recipe if trial.trainer == OURS else "",
        "changes": list(trial.setting.changes),
        "minutes": round(training.minutes[0], 3),
        "wall_minutes": round(training.minutes[1], 3),
        "minutes_with_evaluation": round(whole.minutes[0], 3),
        **{name: round(value, 4) for name, value in compute_quality(predict(), labels.numpy()).items()},
        "commit": describe_commit(),
        "machine": describe_machine(),
    }


def run_trials(
    trials: Iterable[Trial], folder: Path, max_minutes: float = math.inf
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure the trials that have no result yet; return all results, and the reason for each trainer left out.

    No training begins later than `max_minutes` after the start.
    """
    started = time.monotonic()
    results: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for trial in trials:
        path = folder / "trials" / f"{trial.name}.json"
        if trial.trainer in left_out:
            continue
        if not path.is_file():
            if time.monotonic() - started > max_minutes * 60:
                print(f"{trial.name}: not started, because {max_minutes:g} minutes have passed", flush=True)
                continue
            try:
                write_json(path, run_in_subprocess(measure, trial))
            except ImportError as error:
                left_out[trial.trainer] = f"{type(error).__name__}: {error}"
                continue
        result = json.loads(path.read_text(encoding="utf-8"))
        print(
            f"{trial.name}: {result['minutes']:.2f} processor minutes, accuracy {result['accuracy']:.3f}, "
            f"kappa {result['kappa']:.3f}",
            flush=True,
        )
        results.append(result)
    return results, left_out


def main() -> None:
    """Measure, and save results, tables and a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a labels.csv: path, label, split, group")
    parser.add_argument("--weights", type=Path, help=".safetensors file of ResNet-18")
    parser.add_argument("--from", dest="starts", nargs="+", choices=("weights", "scratch"), default=["weights"])
    parser.add_argument("--trainers", nargs="+", choices=tuple(TRAINERS), default=list(TRAINERS))
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 5, 12, 25])
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[96, 128, 224, 224], help="pixels, for each of --epochs"
    )
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 5, 10], help="budgets of Parfocal")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="auto", help="recipe of Parfocal")
    parser.add_argument("--changes", nargs="*", default=["allow=conflicting_labels"], help="KEY=VALUE for Parfocal")
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-quality"), help="folder of single results")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="start no training after this time")
    parser.add_argument("--page", type=Path, default=RESULTS, help="folder for the Markdown page and its figure")
    parser.add_argument("--name", help="name of the files in results/ [default: time-to-quality-DATA]")
    arguments = parser.parse_args()
    if len(arguments.epochs) != len(arguments.sides):
        parser.error(f"--epochs has {len(arguments.epochs)} values and --sides {len(arguments.sides)}; give as many.")
    if "weights" in arguments.starts and arguments.weights is None:
        parser.error("--from weights needs --weights FILE.")
    # Threads that wait for work would otherwise spin and count as processor time.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    data = arguments.data.resolve()
    labels = write_carved_labels(data, (arguments.out / data.name / "labels.csv").resolve())
    weights = arguments.weights.resolve() if arguments.weights else None
    starts = {start: weights if start == "weights" else None for start in arguments.starts}
    lengths = sorted(zip(arguments.epochs, arguments.sides, strict=True))
    trials = list_trials(
        labels,
        starts,
        arguments.trainers,
        lengths,
        arguments.minutes,
        arguments.seeds,
        arguments.recipe,
        arguments.changes,
    )
    results, left_out = run_trials(trials, arguments.out / data.name, arguments.max_minutes)
    name = arguments.name or f"time-to-quality-{data.name}"
    summaries = {start: summarize(results, start) for start in starts}
    save_results(
        name,
        {
            "commit": describe_commit(),
            "left_out": left_out,
            "minutes_to_reach": summaries,
            "ratios": {start: compute_ratios(summary) for start, summary in summaries.items()},
            "trials": results,
        },
    )
    save_curves(results, arguments.page, name)
    write_page(arguments.page / f"{name}.md", data.name, results, left_out)


if __name__ == "__main__":
    main()
