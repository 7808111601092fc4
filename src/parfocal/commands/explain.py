"""`parfocal explain`: where trained networks look."""

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
            help="Run folders, then valid or test, or image files, folders, or CSV files with a column Path.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path("explained"),
    method: Annotated[
        str, typer.Option(help="cam (exact), or as a second opinion gradcam or occlusion (slow).")
    ] = "cam",
    stage: Annotated[str, typer.Option(help="Of gradcam: stage3 is finer than the last. [default: the last]")] = "",
    each: Annotated[int, typer.Option(min=1, max=50, help="Of a split: how many correct, wrong and uncertain.")] = 4,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Of a split: this image; may be said several times.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Of a split: masks called as the images are. [default: the data's folder masks, if any]"),
    ] = None,
) -> None:
    """Write where networks look: sheets of images with heat maps on one scale, the maps, and figures about them.

    Several runs are shown side by side. Images that cannot be read are listed with reasons, the rest is kept, and the
    exit code is 1.

    Example: `parfocal explain runs/demo/resnet18 test -o where`
    """
    from parfocal.errors import UsageError
    from parfocal.evaluation.predict import split_runs_and_images
    from parfocal.explainability.explain import explain as explain_images

    runs, images = split_runs_and_images(arguments)
    if not images:
        raise UsageError("Name a split (valid, test) or images after the runs.")
    result = explain_images(runs, images, out, method=method, stage=stage, n_per_kind=each, ids=ids, masks=masks)
    _print_peaks(result)
    _print_region_overlap(result)
    _print_border_swap(result)
    for path in result.sheets:
        typer.echo(f"Sheet: {path}")
    typer.echo(f"Maps and figures: {result.folder}")
    for name, reason in result.unreadable.items():
        typer.echo(f"Not read: {name}: {reason}", err=True)
    if result.unreadable:
        raise typer.Exit(1)


def _print_peaks(result: "Explanation") -> None:
    """Print the highest value of each map that is shown."""
    from parfocal.commands.tables import new_table, show

    table = new_table("run", "image", "why", "truth", "answer", "probability", "map of", "peak", "at")
    for row in result.heatmaps.to_dict("records"):
        words = [str(row[name]) for name in ("run", "id", "kind", "truth", "predicted")]
        where = f"{row['peak_x']:.0f}, {row['peak_y']:.0f}"
        table.add_row(*words, f"{row['probability']:.3f}", str(row["map"]), f"{row['peak']:.2f}", where)
    if table.row_count:
        show(table)


def _print_region_overlap(result: "Explanation") -> None:
    """Print how the maps of the truth lie to the masks, and what random maps would reach."""
    from parfocal.commands.tables import new_table, show

    table = new_table("run", "masks of", "images", "peak hits", "at random", "share within", "at random")
    for name, lying in result.localization.items():
        for part, one in lying.mask_overlaps.items():
            share = "–" if one.share is None else f"{one.share:.1%}"
            rates = (f"{one.hit_rate:.1%}", f"{one.random_hit_rate:.1%}", share, f"{one.random_share:.1%}")
            table.add_row(name, part, str(one.n_images), *rates)
    if table.row_count:
        show()
        show(table)


def _print_border_swap(result: "Explanation") -> None:
    """Print what lies on the border and the black surround, with a warning where answers hang on the border."""
    from parfocal.commands.tables import new_table, show

    shares = ("on the border", "its area", "on black", "its area")
    table = new_table("run", "images", *shares, "changed by the border", "by the middle")
    margins = {name: one.border_swap for name, one in result.localization.items() if one.border_swap is not None}
    for name, one in margins.items():
        figures = (one.border_share, one.border_area, one.background_share, one.background_area)
        figures += (one.border_change_rate, one.center_change_rate)
        table.add_row(name, str(one.n_images), *(f"{value:.1%}" for value in figures))
    if table.row_count:
        show()
        show(table)
    for name, one in margins.items():
        if one.warning:
            show(f"Warning: {name}: {one.warning}")
