"""`parfocal serve`: trained networks behind an address, for programs and for a page."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, ensembles, or folders that hold several runs.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all, with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any that is free.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="PARFOCAL_TOKEN", help="What requests must carry; needed beyond this machine.")
    ] = "",
) -> None:
    """Grade images in a browser or over HTTP, with all networks side by side, until it is stopped with Ctrl-C.

    Example: `parfocal serve runs/demo`
    """
    from parfocal.serving.server import serve as serve_runs

    serve_runs(runs, host, port, token)
