"""`parfocal export`: export a trained network to a format that other programs run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from parfocal.exporters.formats import FORMATS

if TYPE_CHECKING:
    from parfocal.exporters.export import Exported


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[
        str, typer.Option(help=f"The format: {', '.join(FORMATS)}.", autocompletion=lambda: list(FORMATS))
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write, or its folder. [default: RUN/export]")
    ] = None,
    precision: Annotated[
        Literal["float32", "bf16"], typer.Option(help="Precision of the exported network; onnx: float32 only.")
    ] = "float32",
    int8: Annotated[
        bool, typer.Option("--int8", help="With openvino: quantize to int8, calibrated on validation images.")
    ] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Verify on these images or folders if those of the run are not available. Can be repeated."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="The model card to write. [default: FILE.md in the same folder]")
    ] = None,
) -> None:
    """Export a network that maps the pixels of prepared images to calibrated probabilities, and write its model card.

    The metadata of the file says how to prepare images and how to interpret the probabilities. The export is loaded in
    the runtime of its format and verified against the run on up to 200 validation images. If a predicted class
    differs, or a probability differs by more than 0.01 (0.03 for bf16 and int8), the exit code is 1 and the file is
    kept as NAME.refused.

    Example: `parfocal export runs/demo/resnet18 --to onnx`
    """
    from parfocal.exporters.export import VerificationError
    from parfocal.exporters.export import export as export_run

    try:
        exported = export_run(run, to, out, precision=precision, int8=int8, images=images or (), card=card)
    except VerificationError as error:
        _print_verification(error.exported)
        raise
    _print_verification(exported)
    typer.echo(f"Exported: {exported.path}")
    typer.echo(f"Model card: {exported.card}")


def _print_verification(exported: "Exported") -> None:
    from parfocal.commands.tables import print_table

    rows = [
        (name, f"{result.images_per_second:.1f}", "–" if result.accuracy is None else f"{result.accuracy:.4f}")
        for name, result in exported.results.items()
    ]
    n_images = len(next(iter(exported.results.values())).predicted)
    print_table(f"on {n_images} images of {exported.source}", "images/s", "accuracy", rows=rows)
    verification = exported.verification
    typer.echo(f"Largest difference of a probability from the run: {verification.max_difference:.6f}")
    typer.echo(f"Predicted classes that differ: {verification.n_changed}")
