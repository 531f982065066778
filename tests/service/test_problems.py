import asyncio
import logging

import httpx
import pytest
from fastapi import FastAPI

from service import problems
from service.middleware import AnswerErrors, RequestId
from service.observation import Observe
from service.schemas import ProblemDetails
from service.settings import Settings
from service.state import State


async def get(app: FastAPI, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


def test_what_nobody_foresaw_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    problems.install(app)
    state = State(Settings())
    app.add_middleware(AnswerErrors)
    app.add_middleware(Observe, state=state, known=frozenset())
    app.add_middleware(RequestId)

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError("a secret of /etc/passwd")

    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(get(app, "/broken"))
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:pix2dslr:problem:internal-error"
    assert "secret" not in answer.text
    assert "secret" in caplog.text
    assert state.running == 0
    text, _ = state.metrics.text()
    assert b'pix2dslr_requests_total{route="/broken",status="500"} 1.0' in text
    assert b'pix2dslr_rejections_total{reason="internal-error"} 1.0' in text


def test_each_problem_has_a_name_of_its_own() -> None:
    every = problems.all_problems()
    assert len({problem.type for problem in every}) == len(every)


def test_each_problem_has_an_example_of_its_own_words() -> None:
    told = problems.examples()
    assert told.keys() == {problem.type for problem in problems.all_problems()}
    for name, example in told.items():
        assert example["type"] == f"urn:pix2dslr:problem:{name}"
        ProblemDetails.model_validate(example)
    assert told["malformed-request"]["detail"] == "The file image is missing or empty."
