"""What `/v1/applications/NAME/files` says, against what the application itself sees."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from app.cli.layer import unpack
from tests.acceptance.world import World

CHANGE = """
cd /srv/tree; echo more >> kept/a; rm b; chmod 600 c; : >> same; mkdir new; ln -s ../c new/link
mkfifo new/fifo; rm -r gone; rm -r anew; mkdir anew; echo 1 > anew/own
printf x > "$(printf 'n\\377')"; echo m > /srv/scratch/file
"""


@pytest.fixture(params=["directory", "archive"])
def tree(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> World:
    """An application that has changed a cow over a directory, or over an archive of it."""
    lower = tmp_path / "lower"
    for name in ("kept/a", "b", "c", "same", "gone/deep/x", "anew/below"):
        file = lower / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n")
    mount: dict[str, Any] = {"path": "/srv/tree", "source": "cow", "from": str(lower)}
    if request.param == "archive":
        with tarfile.open(tmp_path / "lower.tar.gz", "w:gz") as tar:
            tar.add(lower, ".")
        given = {"source": "archive", "from": str(tmp_path / "lower.tar.gz")}
        mount = {"path": "/srv/tree", "source": "cow", "lower": given}
    mounts = [mount, {"path": "/srv/scratch", "source": "memory", "size": 1 << 20}]
    elements = {"filesystem": {"settings": {"mounts": mounts}}}
    tmp_path.chmod(0o755)
    world.run("files", ["sleep", "infinity"], elements=elements)
    made = world.exec("files", "sh", "-c", CHANGE)
    assert made.returncode == 0, made.stderr
    return world


CHANGED = {
    "/srv/tree/anew/below": ("removed", []),
    "/srv/tree/anew/own": ("added", []),
    "/srv/tree/b": ("removed", []),
    "/srv/tree/c": ("changed", ["mode"]),
    "/srv/tree/gone": ("removed", []),
    "/srv/tree/kept/a": ("changed", ["content", "time"]),
    "/srv/tree/new": ("added", []),
    "/srv/tree/new/fifo": ("added", []),
    "/srv/tree/new/link": ("added", []),
    "/srv/tree/n\ufffd": ("added", []),
}


def test_changes_listings_and_explanations(tree: World) -> None:
    found = tree.get("files", "files/changes")
    shown = {one["path"]: (one["change"], one["differs"]) for one in found["items"]}
    assert shown == {**CHANGED, "/srv/scratch/file": ("added", [])}
    assert [one["path"] for one in found["mounts"]] == ["/srv/tree", "/srv/scratch"]
    before = {one["path"]: one["size_before"] for one in found["items"]}
    assert before["/srv/tree/kept/a"] == 7 and before["/srv/tree/b"] == 2

    listed = tree.get("files", "files?path=/srv/tree")["items"]
    names = {one["name"]: one["change"] for one in listed}
    assert names["b"] == "removed" and names["c"] == "changed" and names["same"] is None
    assert {one["name"] for one in listed if one["within"]} == {"anew", "kept", "new"}
    real = tree.exec("files", "sh", "-c", "ls -A /srv/tree | wc -l").stdout
    assert int(real) == len([name for name, change in names.items() if change != "removed"])

    def explain(path: str) -> dict[str, Any]:
        answer: dict[str, Any] = tree.get("files", f"files/explain?path={path}")
        return answer

    removed = explain("/srv/tree/b")
    assert not removed["exists"] and "whiteout" in removed["why"]
    assert [(one["has"], one["hides"]) for one in removed["layers"]] == [
        (False, True),
        (True, False),
    ]
    changed = explain("/srv/tree/kept/a")
    assert changed["why"].startswith("copied up from layer 1")
    assert Path(changed["host"]).read_text() == "kept/a\nmore\n"
    assert "still the same" in explain("/srv/tree/same")["why"]
    assert "made by the application" in explain("/srv/tree/new/link")["why"]
    outside = explain("/etc/passwd")
    own = "host's own" if tree.runtime == "namespace" else "image's own"
    assert outside["mount"] is None and own in outside["why"]


def test_operations_are_counted(tree: World) -> None:
    usage = tree.api.get("/v1/usage").json()["items"]
    counted = next(one["files"] for one in usage if one["application"] == "files")
    assert counted["copies_up"] >= 3 and counted["changes"] > 10 and counted["opens"] > 3
    assert counted["stats"] > 0 and counted["faults"] == 0
    tree.exec("files", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do cat /srv/tree/kept/a; done")
    usage = tree.api.get("/v1/usage").json()["items"]
    after = next(one["files"] for one in usage if one["application"] == "files")
    assert after["opens"] - counted["opens"] == 9
    shown = tree.api.get("/metrics").text
    assert f'cse_filesystem_opens{{application="files"}} {after["opens"]}' in shown


def test_the_same_of_a_stopped_application_and_its_start(tree: World) -> None:
    tree.api.post("/v1/applications/files/stop", timeout=60).raise_for_status()
    found = tree.get("files", "files/changes?path=/srv/tree")
    assert {one["path"]: (one["change"], one["differs"]) for one in found["items"]} == CHANGED
    answer = tree.api.get("/v1/applications/files/files/content?path=/srv/tree/kept/a")
    assert answer.content == b"kept/a\nmore\n"
    assert tree.get("files")["status"]["state"] == "stopped"
    tree.api.post("/v1/applications/files/start", timeout=60).raise_for_status()
    assert tree.exec("files", "cat", "/srv/tree/anew/own").stdout == "1\n"
    assert tree.get("files", "files?path=/srv/scratch")["items"] == []  # memory ends with it


def archive(world: World, more: str) -> tarfile.TarFile:
    answer = world.api.get(f"/v1/applications/files/files/archive?path=/srv/tree&{more}")
    assert answer.status_code == 200, answer.text
    return tarfile.open(fileobj=io.BytesIO(gzip.decompress(answer.content)))


def test_commit_the_whole_tree_and_the_changes_alone(tree: World, tmp_path: Path) -> None:
    whole = archive(tree, "")
    files = {one.name: one for one in whole}
    assert files["c"].mode == 0o600 and files["new/link"].linkname == "../c"
    assert files["new/fifo"].isfifo() and "b" not in files and "anew/below" not in files
    content = whole.extractfile("kept/a")
    assert content is not None and content.read() == b"kept/a\nmore\n"
    changes = [one.name for one in archive(tree, "changes=true")]
    assert ".wh.b" in changes and "anew/.wh.below" in changes and ".wh.gone" in changes
    assert "same" not in changes and changes.index("kept") < changes.index("kept/a")

    place = tmp_path / "committed.tar.gz"
    place.write_bytes(tree.api.get("/v1/applications/files/files/archive?path=/srv/tree").content)
    mounts = [
        {"path": "/srv/again", "source": "cow", "lower": {"source": "archive", "from": str(place)}}
    ]
    elements = {"filesystem": {"settings": {"mounts": mounts}}}
    tree.run("again", ["sleep", "infinity"], elements=elements)
    seen = tree.exec(
        "again", "sh", "-c", "cd /srv/again; find . ! -type p | LC_ALL=C sort; cat kept/a"
    )
    there = tree.exec(
        "files", "sh", "-c", "cd /srv/tree; find . ! -type p | LC_ALL=C sort; cat kept/a"
    )
    assert seen.stdout == there.stdout and seen.returncode == 0


def test_a_committed_layer_is_the_lower_of_another_application(tree: World, tmp_path: Path) -> None:
    """`cse fs commit NAME PATH --layer DIR`: a directory, which both may change apart."""
    answer = tree.api.get("/v1/applications/files/files/archive?path=/srv/tree&format=tar")
    layer = tmp_path / "layer"
    unpack(answer.iter_bytes(), layer)
    mounts = [{"path": "/srv/again", "source": "cow", "from": str(layer)}]
    tree.run(
        "again", ["sleep", "infinity"], elements={"filesystem": {"settings": {"mounts": mounts}}}
    )
    show = (
        "find . ! -type p -printf '%p %y %m %l\\n' | LC_ALL=C sort;"
        " find . -type f -exec sha1sum {} + | LC_ALL=C sort"
    )
    there = tree.exec("files", "sh", "-c", f"cd /srv/tree; {show}")
    seen = tree.exec("again", "sh", "-c", f"cd /srv/again; {show}")
    assert seen.returncode == 0 and "./new/link l" in seen.stdout, seen.stderr
    assert seen.stdout == there.stdout
    change = "cd /srv/again; echo 2 > anew/own; rm c; cat anew/own; ls"
    changed = tree.exec("again", "sh", "-c", change)
    assert changed.stdout.startswith("2\n") and "\nc\n" not in changed.stdout
    assert (layer / "anew/own").read_text() == "1\n" and (layer / "c").exists()
    assert tree.exec("files", "cat", "/srv/tree/anew/own").stdout == "1\n"


HOSTILE = """
cd /srv/tree; ln -s / root; ln -s loop loop; mkfifo pipe; ln -s /dev/zero zero
for i in $(seq 300); do : > "many$i"; done; mkdir -p d/e; ln -s ../../../../../../etc/passwd d/e/up
"""


def test_paths_of_a_hostile_application(tree: World) -> None:
    assert tree.exec("files", "sh", "-c", HOSTILE).returncode == 0
    api = tree.api
    place = "/v1/applications/files/files"
    for path, status, slug in (
        ("/srv/tree/pipe", 422, "invalid-specification"),
        ("/srv/tree/zero", 422, "invalid-specification"),
        ("/srv/tree/loop", 404, "not-found"),
        ("/srv/tree/nothing", 404, "not-found"),
        ("/srv/tree", 422, "invalid-specification"),
        ("relative", 422, "invalid-specification"),
        ("/a%00b", 422, "invalid-specification"),
        ("/" + "x" * 5000, 422, "invalid-specification"),
    ):
        answer = api.get(f"{place}/content?path={path}")
        assert answer.status_code == status, (path, answer.text)
        assert answer.json()["type"] == f"urn:cse:problem:{slug}", path
    # Links mean what they mean to the application: they lead nowhere else.
    seen = api.get(f"{place}/content?path=/srv/tree/d/e/up").content
    assert seen.decode() == tree.exec("files", "cat", "/etc/passwd").stdout
    assert api.get(f"{place}/content?path=/srv/tree/n%FF").content == b"x"
    names: list[str] = []
    after: str | None = ""
    while after is not None:
        part = api.get(f"{place}?path=/srv/tree/root/srv/tree/.&limit=100&after={after}").json()
        names += [one["name"] for one in part["items"]]
        after = part["next"]
    assert len([name for name in names if name.startswith("many")]) == 300
    assert names == sorted(names, key=str.encode) and len(names) == len(set(names))
    assert api.get(f"{place}/changes?path=/etc").status_code == 409
    assert api.get(f"{place}/content?path=/srv/tree/c&offset=1&limit=0").content == b""


def test_an_application_without_elements(world: World) -> None:
    world.run("bare", ["sleep", "infinity"])
    names = {one["name"] for one in world.get("bare", "files?path=/")["items"]}
    assert {"etc", "usr", "proc"} <= names
    there = world.exec("bare", "cat", "/etc/passwd").stdout
    answer = world.api.get("/v1/applications/bare/files/content?path=/etc/passwd")
    assert answer.text == there
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''passwd"
    assert world.get("bare", "files/changes") == {"items": [], "mounts": [], "next": None}
