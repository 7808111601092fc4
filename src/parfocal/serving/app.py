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
from parfocal.errors import UnreadableImageError, did_you_mean
from parfocal.serving.engine import Engine, ImagePredictions
from parfocal.serving.examples import EXAMPLE_NAMES, EXAMPLE_TITLES, draw_example
from parfocal.serving.heatmaps import Explainer, build_explanation, render_overlay
from parfocal.serving.limits import RequestError
from parfocal.serving.schemas import (
    ErrorResponse,
    Explanation,
    Health,
    NetworkInfo,
    PredictResponse,
    build_response,
    describe_network,
    describe_unreadable,
)
from parfocal.serving.security import COOKIE, SecurityMiddleware, has_token
from parfocal.serving.telemetry import Telemetry
from parfocal.serving.uploads import Uploads

STATIC = files("parfocal") / "serving" / "static"

_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
_REQUEST_BODY = {
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
_ERROR_DESCRIPTIONS: dict[int, str] = {
    400: "The form is damaged.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site, or by a name that is not this server's.",
    404: "There is no network of that name.",
    408: "The upload came too slowly.",
    413: "The request, or an image of it, is too large, or there are too many images.",
    422: "Nothing in the request can be read as an image, or a parameter is wrong.",
    503: "Too much is waiting; try again in a moment.",
}

_EXPLAIN_RESPONSE: dict[str, Any] = {
    "description": "The image with the map over it, or with `as=values` the maps of all classes.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}

NetworksQuery = Annotated[list[str] | None, Query(alias="network", description="Only these networks; all without.")]

NetworkQuery = Annotated[str | None, Query(alias="network", description="The network; the first without.")]
ClassQuery = Annotated[str | None, Query(alias="class", description="The class that the map is for.")]
FormatQuery = Annotated[Literal["png", "values"], Query(alias="as", description="A picture, or the values themselves.")]


def create_app(engine: Engine, token: str = "") -> ASGIApp:
    """Return the application that answers with an engine's networks, its gate around it."""
    app = FastAPI(
        title="Parfocal",
        version=parfocal.__version__,
        description="Grades images with trained networks. For research and teaching; not a medical device.",
        docs_url=None,
        redoc_url=None,
    )
    uploads, measured = Uploads(engine.limits), Telemetry()
    app.add_exception_handler(RequestError, _handle_request_error)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)
    app.mount("/static", StaticFiles(directory=str(STATIC)), name="static")
    _add_predict_route(app, engine, uploads, measured)
    _add_explain_route(app, engine, uploads)
    _add_status_routes(app, engine, uploads, measured, token)
    _add_page_routes(app, engine)
    return SecurityMiddleware(app, engine.limits, measured, token)


def _add_predict_route(app: FastAPI, engine: Engine, uploads: Uploads, telemetry: Telemetry) -> None:
    @app.post(
        "/v1/grade",
        response_model=PredictResponse,
        responses=_error_responses(*_ERROR_DESCRIPTIONS),
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def grade(request: Request, network: NetworksQuery = None) -> Any:
        """Grade one image, sent as the body, or several, sent as the files of a form.

        What an image is, its bytes decide, never its name. One of several that cannot be read is answered with the
        reason; a request without any that can is refused.
        """
        networks = engine.select_networks(network or ())
        async with uploads.receive(request) as sent:
            said = await _gather_predictions(engine, [one.data for one in sent], network or ())
        bad = sum(isinstance(one, UnreadableImageError) for one in said)
        telemetry.count_unreadable(bad)
        if bad == len(said):
            raise RequestError(422, describe_unreadable(sent, said))
        return JSONResponse(build_response(sent, said, networks))


def _add_explain_route(app: FastAPI, engine: Engine, uploads: Uploads) -> None:
    explaining = Explainer(engine.limits)

    @app.post(
        "/v1/explain",
        response_model=Explanation,
        responses={**_error_responses(*_ERROR_DESCRIPTIONS), 200: _EXPLAIN_RESPONSE},
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def explain(
        request: Request, network: NetworkQuery = None, wanted: ClassQuery = None, form: FormatQuery = "png"
    ) -> Response:
        """Show where in one image a network sees what speaks for a class, and what against it.

        The map is the network's answer taken apart, for any class; by default for the one that it answers.
        """
        chosen = engine.select_networks([network] if network else ())[0]
        classes = chosen.predictor.classes
        if wanted is not None and wanted not in classes:
            raise RequestError(422, f"{chosen.name} has no class {wanted!r}. {did_you_mean(wanted, classes)}")
        async with uploads.receive(request) as sent:
            if len(sent) > 1:
                raise RequestError(422, f"One image at a time is explained, and there are {len(sent)}.")
            said = (await _gather_predictions(engine, [sent[0].data], [chosen.name]))[0]
            if isinstance(said, BaseException):
                raise RequestError(422, describe_unreadable(sent, [said]))
            maps = await explaining.compute_maps(sent[0].data, chosen)
        label = said[chosen.name].label if wanted is None else classes.index(wanted)
        if form == "png":
            return Response(render_overlay(maps, label), media_type="image/png")
        return JSONResponse(build_explanation(maps, chosen, label))


def _add_status_routes(app: FastAPI, engine: Engine, uploads: Uploads, telemetry: Telemetry, token: str) -> None:
    @app.get("/v1/models", response_model=list[NetworkInfo], responses=_error_responses(401, 403, 503))
    def models() -> Any:
        """Say which networks answer, and what was decided about their answers."""
        return JSONResponse([describe_network(one) for one in engine.networks.values()])

    @app.post("/v1/session", status_code=204, responses=_error_responses(401, 403, 503))
    def session(request: Request) -> Response:
        """Keep the token of the request in a cookie, as the page does."""
        if token and not has_token(request.headers, token):
            raise RequestError(401, "The token is wrong.")
        answer = Response(status_code=204)
        if token:
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.get("/healthz", response_model=Health, responses=_error_responses(403, 503))
    async def healthz() -> Any:
        """Say that the server is there."""
        return JSONResponse({"status": "ok", "networks": list(engine.networks), "waiting": engine.n_waiting})

    @app.get("/metrics", response_class=PlainTextResponse, responses=_error_responses(401, 403, 503))
    async def metrics() -> Response:
        """Tell Prometheus what was counted."""
        return Response(
            telemetry.render(engine, uploads.buffered_bytes), media_type="text/plain; version=0.0.4; charset=utf-8"
        )


def _add_page_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse((STATIC / "index.html").read_bytes())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse((STATIC / "docs.html").read_bytes())

    @app.get("/examples", include_in_schema=False)
    async def examples() -> Response:
        return JSONResponse(
            [{"name": name, "title": EXAMPLE_TITLES[name], "file": f"/examples/{name}"} for name in EXAMPLE_NAMES]
        )

    @app.get("/examples/{name}", include_in_schema=False)
    def drawn(name: str) -> Response:
        if name not in EXAMPLE_NAMES:
            raise RequestError(404, f"There is no example {name!r}.")
        return Response(draw_example(name), media_type="image/jpeg")

    @app.get("/runs/{name}", response_class=HTMLResponse, responses=_error_responses(401, 403, 404, 422, 503))
    def report(name: str) -> Response:
        """Show the report of a network's run."""
        page = engine.select_networks([name])[0].folder / "report.html"
        if not page.is_file():
            raise RequestError(404, f"{name} has no report yet. Make it with: parfocal compare RUN")
        return HTMLResponse(page.read_bytes(), headers={"content-security-policy": _REPORT_POLICY})


async def _gather_predictions(
    engine: Engine, images: Sequence[bytes], names: Sequence[str]
) -> list[ImagePredictions | BaseException]:
    """Wait for what is said of each image; one that cannot be read has its reason instead."""
    futures = [asyncio.wrap_future(one) for one in engine.submit(images, names)]
    said = await asyncio.gather(*futures, return_exceptions=True)
    for one in said:
        if isinstance(one, BaseException) and not isinstance(one, UnreadableImageError):
            raise one
    return said


def _error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": ErrorResponse.model_json_schema()}}
    return {status: {"description": _ERROR_DESCRIPTIONS[status], "content": content} for status in statuses}


async def _handle_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"detail": error.reason}, error.status)


async def _handle_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    told = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return JSONResponse({"detail": "; ".join(told)}, 422)
