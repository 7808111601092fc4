"""`parfocal explain`: class activation maps (CAM), Grad-CAM and occlusion maps of trained networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parfocal.explainability.explain import Explanation


def explain(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... IMAGES|SPLIT",
            help="Run folders, followed by valid or test, or by image files, folders, or CSV files with a Path column.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path("explanation"),
    method: Annotated[str, typer.Option(help="cam (exact); for comparison also gradcam, or occlusion (slow).")] = "cam",
    stage: Annotated[
        str, typer.Option(help="With gradcam: the stage of the network; stage3 is finer. [default: the last]")
    ] = "",
    per_kind: Annotated[
        int, typer.Option(min=1, max=50, help="With a split: how many correct, wrong and uncertain images to show.")
    ] = 4,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="With a split: show this image. Can be repeated.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="With a split: a folder of masks with the names of the images. [default: masks in the data folder, if "
            "there]"
        ),
    ] = None,
    own_scale: Annotated[
        bool, typer.Option("--own-scale", help="Scale the maps of each run by its own strongest evidence.")
    ] = False,
) -> None:
    """Show which image regions support a prediction: write sheets of heat maps, the maps, and their measurements.

    Runs are shown side by side. If some images cannot be read, the command lists them with the reasons, writes
    the rest, and exits with 1.

    Example: `parfocal explain runs/demo/resnet18 test -o heatmaps`
    """
    from parfocal.commands.tables import print_table
    from parfocal.errors import UsageError
    from parfocal.evaluation.predict import split_runs_and_images
    from parfocal.explainability.explain import explain as explain_images

    runs, images = split_runs_and_images(arguments)
    if not images:
        raise UsageError(
            "List a split (valid, test) or images after the run folders, for example: `parfocal explain RUN test`"
        )
    result = explain_images(
        runs,
        images,
        out,
        method=method,
        stage=stage,
        n_per_kind=per_kind,
        ids=ids,
        masks=masks,
        own_scale=own_scale,
    )
    rows = [
        (
            *(str(row[name]) for name in ("run", "id", "kind", "truth", "predicted")),
            f"{row['probability']:.3f}",
            str(row["map"]),
            f"{row['peak']:.2f}",
            f"{row['peak_x']:.0f}, {row['peak_y']:.0f}",
        )
        for row in result.heatmaps.to_dict("records")
    ]
    headings = ("run", "image", "kind", "truth", "predicted", "probability", "map of", "peak", "at x, y")
    print_table(*headings, rows=rows)
    # How the maps of the true class overlap with the masks, and what random maps would reach.
    rows = [
        (
            name,
            region,
            str(overlap.n_images),
            f"{overlap.hit_rate:.1%}",
            f"{overlap.random_hit_rate:.1%}",
            "–" if overlap.share is None else f"{overlap.share:.1%}",
            f"{overlap.random_share:.1%}",
        )
        for name, localization in result.localization.items()
        for region, overlap in localization.mask_overlaps.items()
    ]
    if rows:
        typer.echo()
        print_table("run", "region", "images", "peak in mask", "if random", "share in mask", "if random", rows=rows)
    _print_border_swap(result)
    for path in result.sheets:
        typer.echo(f"Sheet: {path}")
    typer.echo(f"Maps and measurements: {result.folder}")
    for name, reason in result.unreadable.items():
        typer.echo(f"Not read: {name}: {reason}", err=True)
    if result.unreadable:
        raise typer.Exit(1)


def _print_border_swap(result: "Explanation") -> None:
    """Print how much of the maps lies on border and background, and a warning if predictions depend on the border."""
    from parfocal.commands.tables import print_table, show

    swaps = {name: item.border_swap for name, item in result.localization.items() if item.border_swap is not None}
    rows: list[tuple[str, ...]] = []
    for name, swap in swaps.items():
        values = (swap.border_share, swap.border_area, swap.background_share, swap.background_area)
        values += (swap.border_change_rate, swap.center_change_rate)
        rows.append((name, str(swap.n_images), *(f"{value:.1%}" for value in values)))
    if rows:
        shares = ("on the border", "border area", "on background", "background area")
        typer.echo()
        print_table("run", "images", *shares, "changed by border swap", "by center swap", rows=rows)
    for name, swap in swaps.items():
        if swap.warning:
            show(f"Warning: {name}: {swap.warning}")
