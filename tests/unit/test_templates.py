"""Templates: the examples with paths that mean something elsewhere; files that cannot be used."""

from __future__ import annotations

from pathlib import Path

from app.catalog.catalog import Catalog
from app.catalog.templates import Templates
from app.domain.application import ApplicationSpec
from app.domain.stack import Stack
from tests.integration.planes import write_elements
from tests.unit.test_stackfile import TEXT

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = "# One thing,\n# and another.\n#\n#   cse apply -f this\n"


def of(folder: Path) -> Templates:
    return Templates(folder, Catalog(write_elements(folder / "elements")))


def test_paths_are_absolute_and_the_comment_tells_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(WORDS + TEXT)
    [found] = of(tmp_path).all()
    assert (found.name, found.about) == ("two", "One thing, and another.")
    web = found.content["applications"]["web"]
    assert web["mounts"][0]["from"] == str(tmp_path.parent / "conf")
    mount = web["elements"]["files"]["settings"]["mounts"][0]
    assert mount["from"] == str(tmp_path / "site.zip")


def test_one_application_alone(tmp_path: Path) -> None:
    text = "name: one\ncommand: [cat]\nmounts: [{from: x, path: /x}]\n"
    (tmp_path / "one.yaml").write_text(text)
    [found] = of(tmp_path).all()
    assert found.about == ""
    assert found.content["mounts"] == [{"from": str(tmp_path / "x"), "path": "/x"}]


def test_what_cannot_be_used_is_told_and_keeps_no_other_back(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(TEXT)
    (tmp_path / "list.yaml").write_text("- one\n")
    (tmp_path / "more.yaml").write_text("include: good.yaml\n" + TEXT)
    (tmp_path / "open.yaml").write_text("variables: {port: null}\n" + TEXT)
    (tmp_path / "torn.yaml").write_text("name: [\n")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    templates = of(tmp_path)
    assert [one.name for one in templates.all()] == ["good"]
    faults = templates.faults()
    assert list(faults) == ["latin.yaml", "list.yaml", "more.yaml", "open.yaml", "torn.yaml"]
    assert faults["list.yaml"] == "neither a stack nor an application"
    assert faults["more.yaml"] == "a template includes no other files"
    assert "'port' has no default" in faults["open.yaml"]


def test_variables_are_their_defaults(tmp_path: Path) -> None:
    text = (
        "name: v\nvariables: {count: 2}\napplications:\n  a: {command: [x], replicas: '${count}'}\n"
    )
    (tmp_path / "v.yaml").write_text(text)
    [found] = of(tmp_path).all()
    assert found.content == {
        "name": "v",
        "applications": {"a": {"command": ["x"], "replicas": 2}},
    }


def test_every_example_is_a_template() -> None:
    templates = Templates(EXAMPLES, Catalog(EXAMPLES))
    assert templates.faults() == {}
    for one in templates.all():
        assert one.about, one.name
        if "applications" in one.content:
            Stack.model_validate(one.content)
        else:
            ApplicationSpec.model_validate(one.content)
