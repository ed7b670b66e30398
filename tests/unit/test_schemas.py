"""The generated schemas accept what the examples say, short forms included, and refuse nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.schemas import generated

ROOT = Path(__file__).resolve().parents[2]
TEXTS = dict(generated())


def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(TEXTS[f"schemas/{name}.schema.json"]))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_examples_are_valid(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    schema = "stack" if "applications" in content else "application"
    assert list(_validator(schema).iter_errors(content)) == []


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("images/*/element.json")), ids=lambda p: p.parent.name
)
def test_manifests_are_valid_elements(path: Path) -> None:
    assert list(_validator("element").iter_errors(json.loads(path.read_text()))) == []


@pytest.mark.parametrize(
    "application",
    [
        {"command": []},
        {"command": ["true"], "colour": "red"},
        {"command": ["true"], "ports": [80]},
        {"command": ["true"], "restart": {"policy": "sometimes"}},
    ],
    ids=["empty command", "unknown field", "port as number", "impossible policy"],
)
def test_nonsense_is_refused(application: dict[str, Any]) -> None:
    assert not _validator("stack").is_valid({"applications": {"web": application}})


def test_files_are_what_the_code_says() -> None:
    stale = [path for path, text in TEXTS.items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make schemas`"
