"""Every response of the server conforms to its OpenAPI description."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

OPERATIONS = [
    ("POST", "/v1/predict"),
    ("POST", "/v1/explain"),
    ("GET", "/v1/models"),
    ("POST", "/v1/session"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/runs/{name}"),
]
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]

SUPPRESSED_CHECKS = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)


@pytest.fixture(scope="session")
def openapi(site: str) -> Any:
    return schemathesis.openapi.from_url(f"{site}openapi.json")


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    # The other operations have no parameters that could be invalid.
    + [(*operation, GenerationMode.NEGATIVE) for operation in OPERATIONS[:2]],
)
def test_every_response_conforms_to_the_description(openapi: Any, method: str, path: str, mode: GenerationMode) -> None:
    operation = openapi[path][method]

    @given(st.data())
    @settings(
        max_examples=30,
        suppress_health_check=SUPPRESSED_CHECKS,
    )
    def send_request(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(checks=CHECKS)

    send_request()


def test_all_operations_are_described(openapi: Any) -> None:
    operations = [result.ok() for result in openapi.get_all_operations()]
    described = {(operation.method.upper(), operation.path) for operation in operations}
    assert described == set(OPERATIONS)
