"""Random requests, valid and not, to every path that the description names."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

import astound
from astound.service.app import create_app
from engine.config import ServiceConfig
from tests.astound.commands.conftest import library
from tests.astound.service.conftest import serving
from tests.astound.service.test_app import OPENAPI

__all__ = ["library"]

pytestmark = pytest.mark.slow

N_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "30"))
"""For each path and method."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def address(
    library: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fuzzed") / "catalog"
    shutil.copytree(library / "catalog", folder)
    with (
        astound.open(folder, model=tiny_model) as catalog,
        serving(create_app(catalog, ServiceConfig(share_audio=True, max_clip_s=30.0))) as url,
    ):
        yield url


OPERATIONS = [
    (path, method)
    for path, methods in json.loads(OPENAPI.read_text())["paths"].items()
    for method in methods
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_no_request_is_a_bug(address: str, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}openapi.json")
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]

    @given(st.sampled_from(modes).flatmap(lambda mode: schema[path][method].as_strategy(mode)))
    @settings(
        max_examples=N_EXAMPLES,
        suppress_health_check=list(HealthCheck),
        derandomize="FUZZ_EXAMPLES" not in os.environ,
    )
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=address, checks=CHECKS)

    send()
