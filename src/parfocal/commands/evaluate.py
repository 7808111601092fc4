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
    tta: Annotated[
        str | None, typer.Option(help="How images are looked at: centre, five, ten, flips, eight; none: as trained.")
    ] = None,
    fellow_eyes: Annotated[
        bool | None,
        typer.Option("--together/--apart", help="Also judge each image with the others of its patient (both eyes)."),
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Judge the mean of the runs, as one.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="Judge on other data: a folder of label files or images, a sheet, a .npz file.")
    ] = None,
    class_map: Annotated[
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
    from parfocal.commands.tables import (
        print_compared_results,
        print_decisions,
        print_differences,
        print_external_results,
        print_results,
    )
    from parfocal.errors import UsageError
    from parfocal.evaluation.decision import DecisionOptions
    from parfocal.evaluation.ensemble import build_ensemble as judge_together
    from parfocal.evaluation.evaluate import evaluate as judge_runs
    from parfocal.evaluation.external import evaluate_external, parse_class_map
    from parfocal.run import Run, open_runs

    wished = any(one is not None for one in (operating, refer, tta, fellow_eyes))
    if data and (wished or ensemble):
        raise UsageError("With --data nothing is chosen: the run's own looks, temperature and thresholds are judged.")
    if class_map and not data:
        raise UsageError("--map says whose class is which in --data, and there is none.")
    if ensemble and tta:
        raise UsageError("The runs of an ensemble look each in its own way: evaluate them with --looks first.")
    if out and not ensemble:
        raise UsageError("-o names the folder of an ensemble; without --ensemble each run keeps its own figures.")
    if data:
        print_external_results(
            {run.name: evaluate_external(run, data, parse_class_map(class_map)) for run in open_runs(runs)}
        )
    elif ensemble:
        opened = open_runs(runs)
        folder = out or opened[0].folder.parent / "ensemble"
        comparison = judge_together(opened, folder, DecisionOptions(operating, refer, fellow_eyes=fellow_eyes))
        print_compared_results(comparison)
        typer.echo()
        print_differences(comparison)
        print_decisions([Run(folder)])
        typer.echo(f"Ensemble: {folder}")
    else:
        judged = judge_runs(runs, operating_point=operating, refer=refer, tta=tta, fellow_eyes=fellow_eyes)
        print_results(judged)
        print_decisions(judged)
