"""`parfocal evaluate`: load trained networks and show what they reach."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold several.")],
    operating: Annotated[
        str | None,
        typer.Option(help="Choose thresholds: sensitivity=0.95, specificity=0.9, cost=5, kappa (of grades), or none."),
    ] = None,
    refer: Annotated[
        float | None, typer.Option(help="Refer to a human what is unsure, at this coverage, such as 0.95; 0: nothing.")
    ] = None,
    looks: Annotated[
        str | None, typer.Option(help="How images are looked at: centre, five, ten, flips, eight; none: as trained.")
    ] = None,
    together: Annotated[
        bool | None,
        typer.Option("--together/--apart", help="Also judge each image with the others of its patient (both eyes)."),
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Judge the mean of the runs, as one.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Judge on other data: a folder of label files or images, a sheet, a .npz file.")
    ] = None,
    classes: Annotated[
        str, typer.Option("--map", metavar="OLD=NEW,…", help="Of --data: whose class is which; OLD= leaves one out.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The ensemble's folder. [default: ensemble beside the runs]")
    ] = None,
) -> None:
    """Load trained networks and show the results of each.

    Predictions, metrics and submissions of the runs are written anew. Thresholds are chosen on validation, never on
    test, and kept with the run: `parfocal predict` answers by them.

    Example: `parfocal evaluate runs/demo --operating sensitivity=0.95`
    """
    from parfocal.commands.results import (
        comparison_table,
        decision_tables,
        difference_table,
        elsewhere_table,
        results_table,
    )
    from parfocal.errors import UsageError
    from parfocal.evaluation.decision import Wishes
    from parfocal.evaluation.elsewhere import evaluate_elsewhere, parsed_classes
    from parfocal.evaluation.ensemble import ensemble as judge_together
    from parfocal.evaluation.evaluate import evaluate as judge_runs
    from parfocal.run import Run, open_runs

    wished = any(one is not None for one in (operating, refer, looks, together))
    if data and (wished or ensemble):
        raise UsageError("With --data nothing is chosen: the run's own looks, temperature and thresholds are judged.")
    if classes and not data:
        raise UsageError("--map says whose class is which in --data, and there is none.")
    if ensemble and looks:
        raise UsageError("The runs of an ensemble look each in its own way: evaluate them with --looks first.")
    if out and not ensemble:
        raise UsageError("-o names the folder of an ensemble; without --ensemble each run keeps its own figures.")
    if data:
        elsewhere_table({run.name: evaluate_elsewhere(run, data, parsed_classes(classes)) for run in open_runs(runs)})
    elif ensemble:
        opened = open_runs(runs)
        folder = out or opened[0].folder.parent / "ensemble"
        comparison = judge_together(opened, folder, Wishes(operating, refer, together=together))
        comparison_table(comparison)
        typer.echo()
        difference_table(comparison)
        decision_tables([Run(folder)])
        typer.echo(f"Ensemble: {folder}")
    else:
        judged = judge_runs(runs, operating=operating, refer=refer, looks=looks, together=together)
        results_table(judged)
        decision_tables(judged)
