"""`parfocal serve`: serve trained networks over HTTP, with an API and a web page."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, ensembles, or folders that contain run folders."),
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all addresses, which needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free port.")] = 8000,
    token: Annotated[
        str, typer.Option(envvar="PARFOCAL_TOKEN", help="The token of requests. Required if host is not local.")
    ] = "",
) -> None:
    """Classify images on a web page or over HTTP, with all networks side by side. Press Ctrl-C to stop.

    Example: `parfocal serve runs/demo`
    """
    from parfocal.serving.server import MissingTokenError
    from parfocal.serving.server import serve as serve_runs

    try:
        serve_runs(runs, host, port, token)
    except MissingTokenError as error:
        raise MissingTokenError(
            f"{error} To create a token and run the command again: "
            "export PARFOCAL_TOKEN=$(openssl rand -hex 16); echo $PARFOCAL_TOKEN"
        ) from None
