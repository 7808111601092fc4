"""`parfocal export`: a trained network in a format that others run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from parfocal.exporters.export import Exported


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[
        Literal["onnx", "openvino", "torchscript", "safetensors"], typer.Option("--to", help="The format.")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write, or its folder. [default: RUN/export]")
    ] = None,
    precision: Annotated[
        Literal["float32", "bf16"],
        typer.Option(help="What it computes in; onnx has float32 only."),
    ] = "float32",
    int8: Annotated[
        bool, typer.Option("--int8", help="Of openvino: whole numbers of 8 bits, their ranges measured on validation.")
    ] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Images or folders to compare on, where those of the run are not there; may be repeated."),
    ] = None,
    card: Annotated[Path | None, typer.Option(help="The model card. [default: FILE.md beside the file]")] = None,
) -> None:
    """Write a network that takes pixels of prepared images and gives calibrated probabilities, and its model card.

    What it needs to be fed and read travels in its metadata. It is loaded again in its own runtime and compared with
    the run on up to 200 validation images; where an answer differs, or a probability by more than 0.01 (0.03 for bf16
    and int8), the exit code is 1 and the file is kept beside as NAME.refused.

    Example: `parfocal export runs/demo/resnet18 --to onnx`
    """
    from parfocal.exporters.export import VerificationError
    from parfocal.exporters.export import export as write

    try:
        done = write(run, to, out, precision=precision, int8=int8, images=images or (), card=card)
    except VerificationError as error:
        _print_verification(error.exported)
        raise
    _print_verification(done)
    typer.echo(f"Exported: {done.path}")
    typer.echo(f"Card: {done.card}")


def _print_verification(exported: "Exported") -> None:
    from parfocal.commands.tables import print_table

    rows: list[Any] = []
    for name, said in exported.results.items():
        right = "–" if said.accuracy is None else f"{said.accuracy:.4f}"
        rows.append((name, f"{said.images_per_second:.1f}", right))
    count = len(next(iter(exported.results.values())).predicted)
    print_table(f"on {count} images of {exported.source}", "images/s", "accuracy", rows=rows)
    found = exported.verification
    typer.echo(
        f"Largest difference of a probability from the run: {found.max_difference:.6f}; other answers: {found.n_changed}"
    )
