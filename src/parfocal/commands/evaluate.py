"""`parfocal evaluate`: evaluate trained networks, and choose thresholds and other decisions on validation."""

from pathlib import Path
from typing import Annotated

import typer

from parfocal.commands.options import RunsArgument


def evaluate(
    runs: RunsArgument,
    operating_point: Annotated[
        str | None,
        typer.Option(help="Choose a threshold on validation: sensitivity=0.95, specificity=0.9, cost=5, or none."),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(
            help="The positive class of two, by name or code; none: as in the recipe, or guessed from names such as "
            "normal."
        ),
    ] = None,
    decide: Annotated[
        str | None,
        typer.Option(
            help="Decision rule for the predicted class: likeliest, mean or thresholds (ordered grades), or cost; "
            "none: as in the recipe."
        ),
    ] = None,
    refer: Annotated[
        float | None,
        typer.Option(
            help="Refer uncertain images to a human: the coverage of the prediction sets, such as 0.95; 0 turns it off."
        ),
    ] = None,
    tta: Annotated[
        str | None,
        typer.Option(
            help="Test-time augmentation (TTA): five_crop, ten_crop, flips, d4, or none; recipe: as in the recipe."
        ),
    ] = None,
    fellow_eyes: Annotated[
        bool | None,
        typer.Option(
            "--fellow-eyes/--single-eyes", help="Combine the images of each patient, such as both eyes, or do not."
        ),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Evaluate the ensemble of the runs: the mean of their probabilities.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="External validation on another data set: a folder, a CSV file, or a .npz file."),
    ] = None,
    class_map: Annotated[
        str, typer.Option(metavar="OLD=NEW,…", help="With --data: rename classes; OLD= drops that class.")
    ] = "",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="near_duplicates", help="With --data: also evaluate many near-duplicates of training images."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The folder of the ensemble. [default: ensemble, in the folder of the runs]"),
    ] = None,
) -> None:
    """Load trained networks, evaluate them, and show their results.

    Predictions, metrics and submissions of the runs are written again. Thresholds are chosen on the validation set,
    never on the test set, and saved with the run, so that `parfocal predict` uses them.

    Example: `parfocal evaluate runs/demo --operating-point sensitivity=0.95`
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
    from parfocal.evaluation.ensemble import build_ensemble
    from parfocal.evaluation.evaluate import evaluate as evaluate_runs
    from parfocal.evaluation.external import evaluate_external, parse_class_map
    from parfocal.run import Run, open_runs

    has_options = any(option is not None for option in (operating_point, positive, decide, refer, tta, fellow_eyes))
    if data and (has_options or ensemble):
        raise UsageError(
            "--data evaluates a run with its own TTA, temperature and decision rule. Leave the other options out."
        )
    if class_map and not data:
        raise UsageError("--class-map renames the classes of --data. Pass --data too.")
    if allow and not data:
        raise UsageError("--allow accepts near-duplicates in --data. Pass --data too.")
    if ensemble and tta:
        raise UsageError("Each run of an ensemble has its own TTA. Run `parfocal evaluate RUN --tta …` first.")
    if out and not ensemble:
        raise UsageError("-o is the folder of an ensemble. Pass --ensemble too; otherwise each run keeps its results.")
    if data:
        renamed = parse_class_map(class_map)
        opened = open_runs(runs)
        print_external_results({run.name: evaluate_external(run, data, renamed, allow or ()) for run in opened})
    elif ensemble:
        members = open_runs(runs)
        folder = out or members[0].folder.parent / "ensemble"
        options = DecisionOptions(operating_point, refer, fellow_eyes=fellow_eyes, decide=decide, positive=positive)
        comparison = build_ensemble(members, folder, options)
        print_compared_results(comparison)
        typer.echo()
        print_differences(comparison)
        print_decisions([Run(folder)])
        typer.echo(f"Ensemble: {folder}")
    else:
        evaluated = evaluate_runs(
            runs,
            operating_point=operating_point,
            refer=refer,
            tta=tta,
            fellow_eyes=fellow_eyes,
            decide=decide,
            positive=positive,
        )
        print_results(evaluated)
        print_decisions(evaluated)
