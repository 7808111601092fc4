"""Train the networks of the results pages, and write the pages: `make results DATA=folder WEIGHTS=file`.

Each run is a process of its own below `--out`. Runs that are finished are skipped, an interrupted one goes on, and the
pages show what is finished. `results_experiments.py` lists the experiments and the pages.
"""

import argparse
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.carving import write_carved_labels
from benchmarks.machine import describe_commit, describe_machine
from benchmarks.results_experiments import DATA_SETS, EXPERIMENTS, PAGES, WEIGHTS, Experiment, GapPage, Page
from benchmarks.results_rendering import render_gap_page, render_index, render_page
from parfocal.io import write_json, write_text
from parfocal.run import Run, find_runs

DOCS = Path(__file__).parents[1] / "docs" / "results"
CURVES = "time-to-quality"
"""The page of accuracy and kappa over processor minutes, which `time_to_quality.py` writes."""


@dataclass(frozen=True)
class Workspace:
    """Where everything lies: the folder of data sets, the file of weights, and the folder of runs."""

    data: Path
    weights: Path
    out: Path

    def locate_data(self, name: str) -> Path:
        """Return the path of a data set; carve its test split or draw it if that is needed."""
        data_set = DATA_SETS[name]
        if data_set.draw:
            folder = self.out / data_set.path
            return folder if folder.exists() else data_set.draw(folder)
        if data_set.carved:
            labels = self.out / data_set.path / "labels.csv"
            return labels if labels.exists() else write_carved_labels(self.data / data_set.path, labels)
        return self.data / data_set.path

    def shorten(self, command: Sequence[str]) -> str:
        """Return a command as it is published: with DATA, WEIGHTS and RUNS in place of the folders of this machine."""
        names = {"WEIGHTS": self.weights, "RUNS": self.out, "DATA": self.data}
        text = shlex.join(command)
        for name, path in names.items():
            text = text.replace(str(path), name)
        return text

    def get_folder(self, experiment: Experiment, seed: int) -> Path:
        """Return the folder of the run of a seed."""
        return self.out / experiment.name / f"seed{seed}"

    def find_run(self, experiment: Experiment, seed: int) -> Run | None:
        """Return the finished run of a seed; None if there is none yet."""
        return next((run for run in find_runs(self.get_folder(experiment, seed)) if run.is_finished), None)


def list_runs(pages: Sequence[Page | GapPage]) -> list[tuple[Experiment, int]]:
    """List the runs that pages need, in an order in which initial weights come before the runs that begin from them.

    The first seed of all experiments comes first.
    """
    needed: dict[tuple[str, int], None] = {}

    def need(experiment: Experiment, seed: int) -> None:
        if experiment.init in EXPERIMENTS:
            source = EXPERIMENTS[experiment.init]
            need(source, choose_source_seed(source, seed))
        needed.setdefault((experiment.name, seed))

    experiments = [EXPERIMENTS[name] for page in pages for name in list_experiments(page)]
    for seed in sorted({seed for experiment in experiments for seed in experiment.seeds}):
        for experiment in experiments:
            if seed in experiment.seeds:
                need(experiment, seed)
    return [(EXPERIMENTS[name], seed) for name, seed in needed]


def list_experiments(page: Page | GapPage) -> tuple[str, ...]:
    """Return the names of the experiments of a page."""
    if isinstance(page, GapPage):
        return tuple(name for pair in page.pairs.values() for name in pair)
    return page.experiments


def choose_source_seed(source: Experiment, seed: int) -> int:
    """Return the seed of the run whose weights a run of `seed` begins from."""
    return seed if seed in source.seeds else source.seeds[0]


def build_command(workspace: Workspace, experiment: Experiment, seed: int) -> list[str]:
    """Return the command of a run, beginning with `parfocal`."""
    init = experiment.init
    if init == WEIGHTS:
        init = str(workspace.weights)
    elif init in EXPERIMENTS:
        source = EXPERIMENTS[init]
        run = workspace.find_run(source, choose_source_seed(source, seed))
        init = str(run.folder if run else workspace.get_folder(source, seed))
    data_set = DATA_SETS[experiment.data]
    changes = [f"init={init}", *experiment.changes, *data_set.changes, f"seed={seed}"]
    data = str(workspace.locate_data(experiment.data))
    out = str(workspace.get_folder(experiment, seed))
    return ["parfocal", "train", data, "--recipe", experiment.recipe, *changes, "--out", out]


def train(workspace: Workspace, experiment: Experiment, seed: int) -> None:
    """Train a run, or resume it, and write how it was made beside it."""
    folder = workspace.get_folder(experiment, seed)
    command = build_command(workspace, experiment, seed)
    resume = ["--resume"] if find_runs(folder) else []
    provenance = {"command": workspace.shorten(command), "commit": describe_commit(), "machine": describe_machine()}
    write_json(folder / "provenance.json", provenance)
    print(provenance["command"], flush=True)
    if not run_command([*command, *resume]):
        print(f"{experiment.name}, seed {seed}, failed; its message is above.", flush=True)


def run_command(command: Sequence[str]) -> bool:
    """Run a command that begins with `parfocal` in a process of its own; return whether it succeeded."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode == 0


def train_missing(workspace: Workspace, pages: Sequence[Page | GapPage], budget_minutes: float) -> None:
    """Train the runs of pages that are not finished; none begins when the budget is used up."""
    started = time.monotonic()
    for experiment, seed in list_runs(pages):
        if workspace.find_run(experiment, seed):
            continue
        if time.monotonic() - started > budget_minutes * 60:
            print(f"{experiment.name}, seed {seed}: not started, because {budget_minutes:g} minutes have passed")
            continue
        source = EXPERIMENTS.get(experiment.init)
        if source and not workspace.find_run(source, choose_source_seed(source, seed)):
            print(f"{experiment.name}, seed {seed}: not started, because {source.name} is not finished")
            continue
        train(workspace, experiment, seed)


def measure_curves(workspace: Workspace, budget_minutes: float) -> None:
    """Measure quality over processor minutes, and write its page."""
    options = ["--data", str(workspace.data / "aptos-224"), "--weights", str(workspace.weights)]
    options += ["--from", "weights", "scratch", "--out", str(workspace.out / CURVES), "--name", CURVES]
    options += ["--page", str(DOCS), "--max-minutes", str(budget_minutes)]
    subprocess.run([sys.executable, "-m", "benchmarks.time_to_quality", *options], check=True)


def collect_runs(workspace: Workspace, names: Sequence[str]) -> Iterator[tuple[Experiment, dict[int, Run]]]:
    """Yield experiments with their finished runs by seed."""
    for name in names:
        experiment = EXPERIMENTS[name]
        runs = {seed: run for seed in experiment.seeds if (run := workspace.find_run(experiment, seed))}
        if runs:
            yield experiment, runs


def write_pages(workspace: Workspace, pages: Sequence[Page | GapPage]) -> None:
    """Write the pages that have results, and the index of all pages."""
    for page in pages:
        runs = dict(collect_runs(workspace, list_experiments(page)))
        if isinstance(page, GapPage):
            text = render_gap_page(page, runs, workspace.locate_data)
        else:
            text = render_page(page, runs, DOCS / "images")
        if text:
            write_text(DOCS / f"{page.name}.md", text)
    titles = {page.name: page.title for page in PAGES}
    titles[CURVES] = "Accuracy and quadratic kappa over processor minutes"
    write_text(DOCS / "README.md", render_index(titles, DOCS))


def main() -> None:
    """Train what is missing and write the pages."""
    names = [*(page.name for page in PAGES), CURVES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets: aptos-224, eyepacs-256, …")
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors file of ResNet-18")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="only these pages")
    parser.add_argument("--budget-minutes", type=float, default=math.inf, help="start no run after this time")
    arguments = parser.parse_args()
    workspace = Workspace(arguments.data.resolve(), arguments.weights.resolve(), arguments.out.resolve())
    os.environ["PARFOCAL_OFFLINE"] = "1"
    pages = [page for page in PAGES if page.name in arguments.only]
    started = time.monotonic()
    train_missing(workspace, pages, arguments.budget_minutes)
    if CURVES in arguments.only:
        measure_curves(workspace, max(0, arguments.budget_minutes - (time.monotonic() - started) / 60))
    write_pages(workspace, pages)


if __name__ == "__main__":
    main()
