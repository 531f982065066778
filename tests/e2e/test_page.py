"""The page over HTTP; tests/browser opens it."""

import re

import httpx
import pytest


def test_it_is_served_with_a_strict_policy(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in " ".join(policy.values())
    assert not re.search(r"https?:|\*|data:", " ".join(policy.values()))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.head("/").headers["content-length"] == str(len(answer.content))


def test_its_files_are_asked_for_again_and_not_sent_again(client: httpx.Client) -> None:
    for address in re.findall(r'"(page/[^"]*)"', client.get("/").text):
        answer = client.get(f"/{address}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = client.get(f"/{address}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


@pytest.mark.parametrize("path", ["/page/", "/page/nothing.js", "/page/..%2fsettings.py", "/page/%2e%2e/settings.py"])
def test_nothing_else_is_served(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
