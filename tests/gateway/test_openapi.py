"""What /openapi.json promises, with requests that are made of it: those that it allows and those that it does not."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.gateway.conftest import Gateway, login


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_operation_answers_as_its_schema_says(gateway: Gateway, mode: GenerationMode) -> None:
    openapi = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    failures = []
    for operation in (result.ok() for result in openapi.get_all_operations()):

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def answers(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=login("schemathesis"), excluded_checks=[positive_data_acceptance])

        try:
            answers()
        except Unsatisfiable:
            continue
        except (Exception, BaseExceptionGroup) as error:
            failures.append(f"{operation.label}: {error!r:.600}")
    assert not failures, "\n\n".join(failures)
