"""What the server answers to anything at all is what its OpenAPI description says."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


@pytest.fixture
def description(site: str) -> Any:
    return schemathesis.openapi.from_url(f"{site}openapi.json")


described = schemathesis.pytest.from_fixture("description")


@described.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_described(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)


def test_everything_for_programs_is_described(description: Any) -> None:
    described = {f"{one.ok().method.upper()} {one.ok().path}" for one in description.get_all_operations()}
    assert described == {
        "POST /v1/grade", "POST /v1/explain", "GET /v1/models", "POST /v1/session", "GET /healthz", "GET /metrics",
        "GET /runs/{name}",
    }  # fmt: skip
