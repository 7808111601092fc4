"""What the server answers to anything at all is what its OpenAPI description says."""

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
    ("POST", "/v1/grade"),
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
def description(site: str) -> Any:
    return schemathesis.openapi.from_url(f"{site}openapi.json")


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*one, GenerationMode.POSITIVE) for one in OPERATIONS]
    # The others take nothing that could be wrong.
    + [(*one, GenerationMode.NEGATIVE) for one in OPERATIONS[:2]],
)
def test_every_answer_is_as_described(description: Any, method: str, path: str, mode: GenerationMode) -> None:
    operation = description[path][method]

    @given(st.data())
    @settings(
        max_examples=30,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    def ask(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        case.call_and_validate(checks=CHECKS)

    ask()


def test_everything_for_programs_is_described(description: Any) -> None:
    described = {(one.ok().method.upper(), one.ok().path) for one in description.get_all_operations()}
    assert described == set(OPERATIONS)
