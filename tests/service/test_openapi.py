"""The OpenAPI document: valid, and whole."""

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from service import problems
from service.app import create_app
from service.schemas import EnhanceOptions, EvaluateOptions, ProblemDetails
from service.settings import Settings

Tree = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Tree:
    return create_app(Settings()).openapi()


def operations(document: Tree) -> Iterator[tuple[str, Tree]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_it_is_valid(document: Tree) -> None:
    validate(document)


def test_every_operation_has_a_plain_name_and_says_what_it_does(document: Tree) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert {"enhance", "evaluate", "cameras", "livez", "healthz", "readyz", "metrics"} <= set(names)
    assert all(name.isidentifier() and len(name) < 12 for name in names)
    assert all(operation["summary"] and operation["description"] for _, operation in operations(document))


def test_every_answer_has_an_example(document: Tree) -> None:
    schemas = document["components"]["schemas"]
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            for kind, content in answer.get("content", {}).items():
                if content["schema"].get("format") == "binary":
                    continue
                known = schemas[content["schema"]["$ref"].rpartition("/")[2]] if "$ref" in content["schema"] else {}
                shown = content.get("example") or content.get("examples") or known.get("examples")
                assert shown, f"{name} {status} {kind}"


def test_every_error_is_documented_with_a_problem(document: Tree) -> None:
    seen = set()
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 400 or problems.MEDIA_TYPE not in answer.get("content", {}):
                assert int(status) < 400 or name.startswith("get /"), f"{name} {status}"
                continue
            for each, example in answer["content"][problems.MEDIA_TYPE]["examples"].items():
                problem = ProblemDetails.model_validate(example["value"])
                assert problem.status == int(status)
                assert problem.type.endswith(each)
                seen.add(each)
    # these two belong to no operation: there is none where they are answered
    assert seen == {problem.type for problem in problems.all_problems()} - {"not-found", "method-not-allowed"}
    assert "Retry-After" in document["paths"]["/enhance"]["post"]["responses"]["429"]["headers"]


def test_no_answer_is_documented_that_is_never_given(document: Tree) -> None:
    assert "HTTPValidationError" not in str(document)


@pytest.mark.parametrize(("path", "options"), [("/enhance", EnhanceOptions), ("/evaluate", EvaluateOptions)])
def test_every_option_is_there_with_an_example(document: Tree, path: str, options: type[EnhanceOptions]) -> None:
    operation = document["paths"][path]["post"]
    form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert form.keys() == {"image", "reference", *options.model_fields}
    for name in options.model_fields:
        assert form[name]["description"]
        (example,) = form[name]["examples"]
        options.model_validate({name: example})


def test_no_option_is_said_to_be_null_which_neither_a_form_nor_a_query_can_say(document: Tree) -> None:
    for path in ("/enhance", "/evaluate"):
        operation = document["paths"][path]["post"]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        query = {each["name"]: each["schema"] for each in operation.get("parameters", ())}
        assert "'null'" not in str([form, query])


def test_both_kinds_of_body_are_there(document: Tree) -> None:
    operation = document["paths"]["/enhance"]["post"]
    kinds = operation["requestBody"]["content"].keys()
    assert {"multipart/form-data", "image/jpeg", "image/png", "application/zip", "application/octet-stream"} <= kinds
    query = {each["name"]: each for each in operation["parameters"] if each["in"] == "query"}
    assert query.keys() == EnhanceOptions.model_fields.keys()
    assert all(each["description"] and each["schema"]["examples"] for each in query.values())
    answers = operation["responses"]["200"]
    assert {"image/jpeg", "application/zip"} <= answers["content"].keys()
    assert {"ETag", "Server-Timing", "X-Request-ID", "X-PSNR"} <= answers["headers"].keys()
