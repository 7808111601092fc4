"""The routes: predict and explain images, list the networks, health, metrics, the page and the API documentation."""

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp

from parfocal.errors import UnreadableImageError, did_you_mean
from parfocal.report.html import CONTENT_POLICY
from parfocal.serving.engine import Engine, ImagePredictions
from parfocal.serving.examples import EXAMPLE_TITLES, draw_example
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
from parfocal.version import __version__

STATIC = files("parfocal") / "serving" / "static"

_REPORT_POLICY = f"{CONTENT_POLICY}; frame-ancestors 'none'; sandbox"
_FILE_SCHEMA = {"type": "string", "format": "binary"}
_FORM_SCHEMA = {
    "type": "object",
    "properties": {"image": {"type": "array", "items": _FILE_SCHEMA, "minItems": 1}},
    "required": ["image"],
}
_REQUEST_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": _FORM_SCHEMA}, "application/octet-stream": {"schema": _FILE_SCHEMA}},
}
_ERROR_DESCRIPTIONS: dict[int, str] = {
    400: "The form is damaged.",
    401: "The token is missing or wrong.",
    403: "The request comes from another site, or uses a host name other than localhost without a token.",
    404: "There is no network with this name.",
    408: "The upload was too slow.",
    413: "The request or an image is too large, or there are too many images.",
    422: "No image in the request can be read, or a parameter is invalid.",
    500: "A network gives a probability that is not finite.",
    503: "The server is busy. Try again in a moment.",
}

_EXPLAIN_RESPONSE: dict[str, Any] = {
    "description": "The image with the heat map over it; with `as=values` the maps of all classes.",
    "content": {"image/png": {"schema": _FILE_SCHEMA}},
}

NetworksQuery = Annotated[
    list[str] | None, Query(alias="network", description="Use only these networks. [default: all]")
]
NetworkQuery = Annotated[str | None, Query(alias="network", description="The network. [default: the first]")]
ClassQuery = Annotated[
    str | None, Query(alias="class", description="The class to explain. [default: the predicted class]")
]
FormatQuery = Annotated[Literal["png", "values"], Query(alias="as", description="An image, or the values as JSON.")]


def create_app(engine: Engine, token: str = "") -> ASGIApp:
    """Return the application that serves the networks of an engine, behind the security middleware."""
    app = FastAPI(
        title="Parfocal",
        version=__version__,
        description="Classify images with trained networks. For research and teaching; not a medical device.",
        docs_url=None,
        redoc_url=None,
    )
    uploads = Uploads(engine.limits)
    telemetry = Telemetry(engine, uploads)

    @app.exception_handler(RequestError)
    async def handle_request_error(_: Request, error: RequestError) -> Response:
        return JSONResponse({"detail": error.reason}, error.status)

    @app.exception_handler(RequestValidationError)
    async def handle_validation_error(_: Request, error: RequestValidationError) -> Response:
        messages = [f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}" for problem in error.errors()]
        return JSONResponse({"detail": "; ".join(messages)}, 422)

    app.mount("/static", StaticFiles(directory=str(STATIC)), name="static")
    _add_predict_route(app, engine, uploads, telemetry)
    _add_explain_route(app, engine, uploads)
    _add_status_routes(app, engine, telemetry, token)
    _add_page_routes(app, engine)
    return SecurityMiddleware(app, engine.limits, telemetry, token)


def _add_predict_route(app: FastAPI, engine: Engine, uploads: Uploads, telemetry: Telemetry) -> None:
    @app.post(
        "/v1/predict",
        response_model=PredictResponse,
        responses=_error_responses(*_ERROR_DESCRIPTIONS),
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def predict(request: Request, network: NetworksQuery = None) -> Any:
        """Predict an image, sent as the body, or images, sent as the files of a form.

        The bytes decide the image format, never the name. If some of the images cannot be read, the response gives the
        reason for each of them. If none can be read, the request is rejected.
        """
        networks = engine.select_networks(network or ())
        async with uploads.receive(request) as sent:
            predictions = await _gather_predictions(engine, [upload.data for upload in sent], network or ())
        n_unreadable = sum(isinstance(result, UnreadableImageError) for result in predictions)
        telemetry.count_unreadable(n_unreadable)
        if n_unreadable == len(predictions):
            raise RequestError(422, describe_unreadable(sent, predictions))
        return JSONResponse(build_response(sent, predictions, networks))


def _add_explain_route(app: FastAPI, engine: Engine, uploads: Uploads) -> None:
    explainer = Explainer(engine.decoding)

    @app.post(
        "/v1/explain",
        response_model=Explanation,
        responses={**_error_responses(*_ERROR_DESCRIPTIONS), 200: _EXPLAIN_RESPONSE},
        openapi_extra={"requestBody": _REQUEST_BODY},
    )
    async def explain(
        request: Request, network: NetworkQuery = None, class_name: ClassQuery = None, output: FormatQuery = "png"
    ) -> Response:
        """Compute the exact class activation map of an image: the evidence for and against a class.

        The map can be computed for any class. The default is the predicted class.
        """
        selected = engine.select_networks([network] if network else ())[0]
        classes = selected.predictor.classes
        if class_name is not None and class_name not in classes:
            raise RequestError(422, f"{selected.name} has no class {class_name!r}. {did_you_mean(class_name, classes)}")
        async with uploads.receive(request) as sent:
            if len(sent) > 1:
                raise RequestError(422, f"Send one image at a time. This request has {len(sent)}.")
            predictions = (await _gather_predictions(engine, [sent[0].data], [selected.name]))[0]
            if isinstance(predictions, BaseException):
                raise RequestError(422, describe_unreadable(sent, [predictions]))
            maps = await explainer.compute_maps(sent[0].data, selected)
        label = predictions[selected.name].label if class_name is None else classes.index(class_name)
        if output == "png":
            return Response(render_overlay(maps, label), media_type="image/png")
        return JSONResponse(build_explanation(maps, selected, label))


def _add_status_routes(app: FastAPI, engine: Engine, telemetry: Telemetry, token: str) -> None:
    @app.get("/v1/models", response_model=list[NetworkInfo], responses=_error_responses(401, 403, 503))
    def models() -> Any:
        """List the loaded networks, with their classes, calibration, operating point and metrics."""
        return JSONResponse([describe_network(network) for network in engine.networks.values()])

    @app.post("/v1/session", status_code=204, responses=_error_responses(401, 403, 503))
    def session(request: Request) -> Response:
        """Store the token of the request in a cookie. The page uses this."""
        if token and not has_token(request.headers, token):
            raise RequestError(401, "The token is wrong.")
        response = Response(status_code=204)
        if token:
            secure = request.url.scheme == "https"
            response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/healthz", response_model=Health, responses=_error_responses(403, 503))
    async def healthz(request: Request) -> Any:
        """Report that the server is running. If the server has a token, the rest is only for requests that send it."""
        health = {"status": "ok"}
        if not token or has_token(request.headers, token):
            health |= {"networks": list(engine.networks), "waiting": engine.n_waiting}
        return JSONResponse(health)

    @app.get("/metrics", response_class=PlainTextResponse, responses=_error_responses(401, 403, 503))
    async def metrics() -> Response:
        """Return counters and durations for Prometheus."""
        return Response(telemetry.render(), headers={"content-type": CONTENT_TYPE_LATEST})


def _add_page_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse((STATIC / "index.html").read_bytes())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse((STATIC / "docs.html").read_bytes())

    @app.get("/examples", include_in_schema=False)
    async def examples() -> Response:
        titles = EXAMPLE_TITLES.items()
        return JSONResponse([{"name": name, "title": title, "file": f"/examples/{name}"} for name, title in titles])

    @app.get("/examples/{name}", include_in_schema=False)
    def example(name: str) -> Response:
        if name not in EXAMPLE_TITLES:
            raise RequestError(404, f"There is no example {name!r}.")
        return Response(draw_example(name), media_type="image/jpeg")

    @app.get("/runs/{name}", response_class=HTMLResponse, responses=_error_responses(401, 403, 404, 422, 503))
    def report(name: str) -> Response:
        """Return the report of a network's run."""
        page = engine.select_networks([name])[0].folder / "report.html"
        if not page.is_file():
            raise RequestError(404, f"{name} has no report yet. Write it with: parfocal compare RUN")
        return HTMLResponse(page.read_bytes(), headers={"content-security-policy": _REPORT_POLICY})


async def _gather_predictions(
    engine: Engine, images: Sequence[bytes], names: Sequence[str]
) -> list[ImagePredictions | BaseException]:
    """Return the predictions for each image, or the reason why it cannot be read."""
    futures = [asyncio.wrap_future(future) for future in engine.submit(images, names)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, UnreadableImageError):
            raise result
    return results


def _error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": ErrorResponse.model_json_schema()}}
    return {status: {"description": _ERROR_DESCRIPTIONS[status], "content": content} for status in statuses}
