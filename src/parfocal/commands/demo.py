"""`parfocal demo`: the whole way, from drawn smears to a report, in minutes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parfocal.recipe import Recipe

NETWORKS = ["resnet18", "resnet50", "resnet152"]
N_IMAGES = 1600
RECIPE: "str | Recipe" = "demo"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the data, the runs and the report.")] = Path("runs/demo"),
) -> None:
    """Draw blood smears, train ResNet-18, 50 and 152 on them from scratch, and compare the three.

    Stopped, it goes on where it was; delete the folder to begin anew.

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
    page = compare(runs).report_path
    print_results(runs)
    typer.echo(f"\nReport:       {page}")
    for run in runs:
        typer.echo(f"Submission:   {run.folder / 'submission.csv'}")
    typer.echo(f"\nNext: open {page} in a browser, run `parfocal evaluate {out}`,")
    typer.echo(f"or grade images of your own on a page: parfocal serve {out}")
