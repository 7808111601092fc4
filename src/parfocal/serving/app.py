"""The addresses: grading and explaining images, what is loaded, health, metrics, the page and its description."""

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

import parfocal
from parfocal.data.decode import Unreadable
from parfocal.errors import nearest
from parfocal.serving.answers import Explanation, Grades, Health, Loaded, Refusal, images_said, loaded, reasons
from parfocal.serving.engine import Engine, Graded
from parfocal.serving.examples import NAMES, TITLES, example
from parfocal.serving.explaining import Explaining, map_picture, map_values
from parfocal.serving.gate import COOKIE, Gate, carries
from parfocal.serving.limits import Refused
from parfocal.serving.measured import Measured
from parfocal.serving.uploads import Uploads

STATIC = files("parfocal") / "serving" / "static"

_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
                },
                "required": ["image"],
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}
_REFUSALS: dict[int, str] = {
    400: "The form is damaged.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site, or by a name that is not this server's.",
    404: "There is no network of that name.",
    408: "The upload came too slowly.",
    413: "The request, or an image of it, is too large, or there are too many images.",
    422: "Nothing in the request can be read as an image, or a parameter is wrong.",
    503: "Too much is waiting; try again in a moment.",
}

_EXPLAINED: dict[str, Any] = {
    "description": "The image with the map over it, or with `as=values` the maps of all classes.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}

Chosen = Annotated[list[str] | None, Query(alias="network", description="Only these networks; all without.")]

One = Annotated[str | None, Query(alias="network", description="The network; the first without.")]
Class = Annotated[str | None, Query(alias="class", description="The class that the map is for.")]
Form = Annotated[Literal["png", "values"], Query(alias="as", description="A picture, or the values themselves.")]


def new_app(engine: Engine, token: str = "") -> ASGIApp:
    """Return the application that answers with an engine's networks, its gate around it."""
    app = FastAPI(
        title="Parfocal",
        version=parfocal.__version__,
        description="Grades images with trained networks. For research and teaching; not a medical device.",
        docs_url=None,
        redoc_url=None,
    )
    uploads, measured = Uploads(engine.limits), Measured()
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.mount("/static", StaticFiles(directory=str(STATIC)), name="static")
    _grading(app, engine, uploads, measured)
    _explaining(app, engine, uploads)
    _telling(app, engine, uploads, measured, token)
    _pages(app, engine)
    return Gate(app, engine.limits, measured, token)


def _grading(app: FastAPI, engine: Engine, uploads: Uploads, measured: Measured) -> None:
    @app.post(
        "/v1/grade", response_model=Grades, responses=_described(*_REFUSALS), openapi_extra={"requestBody": _BODY}
    )
    async def grade(request: Request, network: Chosen = None) -> Any:
        """Grade one image, sent as the body, or several, sent as the files of a form.

        What an image is, its bytes decide, never its name. One of several that cannot be read is answered with the
        reason; a request without any that can is refused.
        """
        networks = engine.chosen(network or ())
        async with uploads.of(request) as sent:
            said = await _said(engine, [one.data for one in sent], network or ())
        bad = sum(isinstance(one, Unreadable) for one in said)
        measured.unreadable(bad)
        if bad == len(said):
            raise Refused(422, reasons(sent, said))
        return JSONResponse(images_said(sent, said, networks))


def _explaining(app: FastAPI, engine: Engine, uploads: Uploads) -> None:
    explaining = Explaining(engine.limits)

    @app.post(
        "/v1/explain",
        response_model=Explanation,
        responses={**_described(*_REFUSALS), 200: _EXPLAINED},
        openapi_extra={"requestBody": _BODY},
    )
    async def explain(request: Request, network: One = None, wanted: Class = None, form: Form = "png") -> Response:
        """Show where in one image a network sees what speaks for a class, and what against it.

        The map is the network's answer taken apart, for any class; by default for the one that it answers.
        """
        chosen = engine.chosen([network] if network else ())[0]
        classes = chosen.answering.classes
        if wanted is not None and wanted not in classes:
            raise Refused(422, f"{chosen.name} has no class {wanted!r}. {nearest(wanted, classes)}")
        async with uploads.of(request) as sent:
            if len(sent) > 1:
                raise Refused(422, f"One image at a time is explained, and there are {len(sent)}.")
            said = (await _said(engine, [sent[0].data], [chosen.name]))[0]
            if isinstance(said, BaseException):
                raise Refused(422, reasons(sent, [said]))
            maps = await explaining.maps(sent[0].data, chosen)
        label = said[chosen.name].label if wanted is None else classes.index(wanted)
        if form == "png":
            return Response(map_picture(maps, label), media_type="image/png")
        return JSONResponse(map_values(maps, chosen, label))


def _telling(app: FastAPI, engine: Engine, uploads: Uploads, measured: Measured, token: str) -> None:
    @app.get("/v1/models", response_model=list[Loaded], responses=_described(401, 403, 503))
    def models() -> Any:
        """Say which networks answer, and what was decided about their answers."""
        return JSONResponse([loaded(one) for one in engine.networks.values()])

    @app.post("/v1/session", status_code=204, responses=_described(401, 403, 503))
    def session(request: Request) -> Response:
        """Keep the token of the request in a cookie, as the page does."""
        if token and not carries(request.headers, token):
            raise Refused(401, "The token is wrong.")
        answer = Response(status_code=204)
        if token:
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.get("/healthz", response_model=Health, responses=_described(403, 503))
    async def healthz() -> Any:
        """Say that the server is there."""
        return JSONResponse({"status": "ok", "networks": list(engine.networks), "waiting": engine.waiting})

    @app.get("/metrics", response_class=PlainTextResponse, responses=_described(401, 403, 503))
    async def metrics() -> Response:
        """Tell Prometheus what was counted."""
        return Response(measured.text(engine, uploads.held), media_type="text/plain; version=0.0.4; charset=utf-8")


def _pages(app: FastAPI, engine: Engine) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse((STATIC / "index.html").read_bytes())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse((STATIC / "docs.html").read_bytes())

    @app.get("/examples", include_in_schema=False)
    async def examples() -> Response:
        return JSONResponse([{"name": name, "title": TITLES[name], "file": f"/examples/{name}"} for name in NAMES])

    @app.get("/examples/{name}", include_in_schema=False)
    def drawn(name: str) -> Response:
        if name not in NAMES:
            raise Refused(404, f"There is no example {name!r}.")
        return Response(example(name), media_type="image/jpeg")

    @app.get("/runs/{name}", response_class=HTMLResponse, responses=_described(401, 403, 404, 422, 503))
    def report(name: str) -> Response:
        """Show the report of a network's run."""
        page = engine.chosen([name])[0].folder / "report.html"
        if not page.is_file():
            raise Refused(404, f"{name} has no report yet. Make it with: parfocal compare RUN")
        return HTMLResponse(page.read_bytes(), headers={"content-security-policy": _REPORT})


async def _said(engine: Engine, images: Sequence[bytes], names: Sequence[str]) -> list[Graded | BaseException]:
    """Wait for what is said of each image; one that cannot be read has its reason instead."""
    futures = [asyncio.wrap_future(one) for one in engine.grade(images, names)]
    said = await asyncio.gather(*futures, return_exceptions=True)
    for one in said:
        if isinstance(one, BaseException) and not isinstance(one, Unreadable):
            raise one
    return said


def _described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": Refusal.model_json_schema()}}
    return {status: {"description": _REFUSALS[status], "content": content} for status in statuses}


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": error.reason}, error.status)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(told)}, 422)
