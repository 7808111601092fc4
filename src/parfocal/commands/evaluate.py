"""`parfocal evaluate`: load trained networks and show what they reach."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold several.")],
) -> None:
    """Load trained networks and show the results of each.

    Predictions, metrics and submissions of the runs are written anew.

    Example: `parfocal evaluate runs/demo`
    """
    from parfocal.commands.results import results_table
    from parfocal.evaluation.evaluate import evaluate as judge_runs

    results_table(judge_runs(runs))
