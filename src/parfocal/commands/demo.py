"""`parfocal demo`: from synthetic blood smears to a report, in minutes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parfocal.recipe import Recipe

NETWORKS = ["resnet18", "resnet50", "resnet152"]
N_IMAGES = 1600
RECIPE: "str | Recipe" = "demo"


def demo(
    out: Annotated[Path, typer.Option(help="The folder for the data, the runs and the report.")] = Path("runs/demo"),
) -> None:
    """Synthesize blood smears, train ResNet-18, ResNet-50 and ResNet-152 on them from scratch, and compare the three.

    If it was interrupted, the same command resumes it. Delete the folder to start again.

    Example: `parfocal demo`
    """
    from parfocal.commands.tables import print_results
    from parfocal.report.live import make_live_callback
    from parfocal.report.report import compare
    from parfocal.synthetic.dataset import synthesize
    from parfocal.training.train import train

    data = out / "smears"
    if not data.exists():
        synthesize("smear", data, N_IMAGES)
    typer.echo(f"{N_IMAGES} synthetic smears: {data}")
    runs = train(data, RECIPE, out=out, resume=True, after_epoch=make_live_callback(), model=NETWORKS)
    for run in runs:
        compare(run.folder)
    report_path = compare(runs).report_path
    print_results(runs)
    typer.echo(f"\nReport:       {report_path}")
    for run in runs:
        typer.echo(f"Submission:   {run.folder / 'submission.csv'}")
    typer.echo("\nNext steps:")
    typer.echo(f"- Open {report_path} in a browser.")
    typer.echo(f"- Evaluate the networks again: parfocal evaluate {out}")
    typer.echo(f"- Classify your own images on a web page: parfocal serve {out}")
