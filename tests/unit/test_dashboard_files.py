"""Files of the dashboard as the API serves them: policy, caching, places within the page."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import dashboard, problems


@pytest.fixture
def built(tmp_path: Path) -> Path:
    directory = tmp_path / "dashboard"
    (directory / "assets").mkdir(parents=True)
    (directory / "index.html").write_text("<!doctype html><title>CSE</title>")
    script = directory / "assets/index-abc.js"
    script.write_text("export {};")
    script.with_name("index-abc.js.gz").write_bytes(gzip.compress(b"export {};"))
    (tmp_path / "secret").write_text("not the dashboard's")
    return directory


def client(directory: Path) -> TestClient:
    api = FastAPI()

    @api.get("/v1/health")
    def health() -> str:
        return "ok"

    problems.install(api)
    dashboard.install(api, directory)
    return TestClient(api)


PAGE = {"accept": "text/html,*/*;q=0.8"}


def test_page_and_places_within_it(built: Path) -> None:
    http = client(built)
    for path in ("/", "/applications/web-a/logs"):
        answer = http.get(path, headers=PAGE)
        assert answer.status_code == 200
        assert "<title>CSE</title>" in answer.text
        assert answer.headers["cache-control"] == "no-cache"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_assets_are_kept_and_packed(built: Path) -> None:
    answer = client(built).get("/assets/index-abc.js")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == "export {};"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    plain = client(built).get("/assets/index-abc.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == "export {};"


def test_what_is_no_page_stays_a_problem(built: Path) -> None:
    http = client(built)
    assert http.get("/v1/nope", headers=PAGE).headers["content-type"] == problems.MEDIA_TYPE
    assert http.get("/nope", headers={"accept": "application/json"}).status_code == 404
    assert http.get("/assets/gone.js", headers=PAGE).status_code == 404
    assert http.post("/applications").status_code == 405
    assert http.get("/v1/health").json() == "ok"


def test_nothing_outside_its_directory_is_served(built: Path) -> None:
    http = client(built)
    for path in ("/..%2fsecret", "/assets/..%2f..%2fsecret", "/%2fetc%2fpasswd"):
        answer = http.get(path, headers={"accept": "*/*"})
        assert answer.status_code == 404, path


def test_unbuilt_says_how_to_build(tmp_path: Path) -> None:
    http = client(tmp_path / "nothing")
    answer = http.get("/", headers=PAGE)
    assert answer.status_code == 200
    assert "make dashboard" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
