"""What the server answers is what its OpenAPI document says, tried by schemathesis."""

from pathlib import Path

from tests.e2e.conftest import Server
from tests.fuzz.schema import check_schema


def test_every_operation_answers_as_documented(identity_server: Server, tmp_path: Path) -> None:
    found = check_schema(identity_server.url, tmp_path, seed=1, examples=40)
    assert found is None, found
