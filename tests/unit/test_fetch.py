"""images/fetch.py: from this machine's apt entries and pinned files to a patched tree."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATCH = "--- a/main.c\n+++ b/main.c\n@@ -1 +1 @@\n-{old}\n+{new}\n"


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with every directory of its own."""
    spec = importlib.util.spec_from_file_location("cse_fetch", ROOT / "images/fetch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "cse_fetch", module)
    spec.loader.exec_module(module)
    build = tmp_path / "build"
    monkeypatch.setattr(module, "BUILD", build)
    monkeypatch.setattr(module, "DOWNLOADS", build / "downloads")
    monkeypatch.setattr(module, "SOURCES", build / "sources")
    monkeypatch.setattr(module, "APT", build / "apt")
    monkeypatch.setattr(module, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(module, "PINS", tmp_path / "images/sources.json")
    monkeypatch.setattr(module, "APT_CONFIGURATION", tmp_path / "etc")
    (tmp_path / "etc/sources.list.d").mkdir(parents=True)
    (build / "downloads").mkdir(parents=True)
    return module


def _tar(path: Path, files: dict[str, str]) -> str:
    with tarfile.open(path, "w:xz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def package(fetch: ModuleType) -> ModuleType:
    """A pinned package `thing` whose main.c says one; Debian's patch makes it two, ours three."""
    downloads = fetch.DOWNLOADS
    series = "# a comment\nfix.diff -p1\n"
    debian = {
        "debian/patches/series": series,
        "debian/patches/fix.diff": PATCH.format(old="one", new="two"),
    }
    files = {
        name: _tar(downloads / name, content)
        for name, content in {
            "thing_1.orig.tar.xz": {"thing-1/main.c": "one\n"},
            "thing_1-1.debian.tar.xz": debian,
        }.items()
    }
    ours = fetch.IMAGES / "element/patches/thing"
    ours.mkdir(parents=True)
    (ours / "0001-three.patch").write_text(PATCH.format(old="two", new="three"))
    pin = {"debian_source": "thing", "version": "1-1", "files": files}
    fetch.PINS.write_text(json.dumps({"thing": pin}))
    return fetch


def test_debian_patches_then_ours(package: ModuleType) -> None:
    package.fetch("thing")
    assert (package.SOURCES / "thing/main.c").read_text() == "three\n"
    assert (package.SOURCES / "thing/.fetched").exists()


def test_made_anew_only_when_a_patch_changes(package: ModuleType) -> None:
    package.fetch("thing")
    main = package.SOURCES / "thing/main.c"
    main.write_text("mine\n")
    package.fetch("thing")
    assert main.read_text() == "mine\n"
    patch = package.IMAGES / "element/patches/thing/0001-three.patch"
    patch.write_text(PATCH.format(old="two", new="four"))
    package.fetch("thing")
    assert main.read_text() == "four\n"


def test_a_patch_that_does_not_fit_leaves_nothing(package: ModuleType) -> None:
    patch = package.IMAGES / "element/patches/thing/0002-late.patch"
    patch.write_text(PATCH.format(old="two", new="five"))
    with pytest.raises(package.FetchError, match="0002-late"):
        package.fetch("thing")
    assert list(package.SOURCES.iterdir()) == []


def test_other_content_is_refused_and_the_error_says_what_is_wanted(package: ModuleType) -> None:
    (package.DOWNLOADS / "thing_1.orig.tar.xz").write_bytes(b"something else")
    with pytest.raises(package.FetchError) as caught:
        package.fetch("thing")
    message = str(caught.value)
    assert "thing_1.orig.tar.xz" in message and str(package.DOWNLOADS) in message
    assert not (package.DOWNLOADS / "thing_1.orig.tar.xz").exists()
    assert not (package.SOURCES / "thing").exists()


def test_unknown_name(package: ModuleType) -> None:
    with pytest.raises(package.FetchError, match="has no 'other'; it has thing"):
        package.fetch("other")


def _deb822(suites: str, uri: str, more: str = "") -> str:
    return f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n{more}\n"


def test_suites_come_from_the_machines_own_mirror(fetch: ModuleType) -> None:
    folder = fetch.APT_CONFIGURATION / "sources.list.d"
    (folder / "debian.sources").write_text(
        "# a comment\n"
        + _deb822("bookworm bookworm-updates", "http://a.example/debian")
        + "\n"
        + _deb822("bookworm-security", "http://a.example/security")
        + "\n"
        + _deb822("trixie", "http://off.example/debian", "Enabled: no\n")
        + "\n"
        + _deb822("nodistro", "http://vendor.example/node")
    )
    lines = [line.partition("] ")[2] for line in fetch.source_list()]
    assert lines == [
        "http://a.example/debian trixie main",
        "http://a.example/debian trixie-updates main",
        "http://a.example/security trixie-security main",
    ]


def test_one_line_entries(fetch: ModuleType) -> None:
    (fetch.APT_CONFIGURATION / "sources.list").write_text(
        "# deb http://commented.example/debian sid main\n"
        "deb [arch=amd64] http://b.example/debian stable main contrib\n"
    )
    assert all("http://b.example/debian trixie" in line for line in fetch.source_list())


def test_no_debian_archive(fetch: ModuleType) -> None:
    (fetch.APT_CONFIGURATION / "sources.list").write_text("deb http://u.example/u noble main\n")
    with pytest.raises(fetch.FetchError, match="no Debian archive"):
        fetch.source_list()


def test_pinned_files_are_taken_from_the_pools_of_both_archives(fetch: ModuleType) -> None:
    (fetch.APT_CONFIGURATION / "sources.list").write_text(
        "deb http://a.example/debian/ bookworm main\n"
        "deb http://a.example/security bookworm-security main\n"
    )
    found = [
        uri
        for source in ("zlib", "libzstd")
        for uri in fetch.pool_uris(fetch.Pin("1-1", {}, source), f"{source}_1.tar.gz")
    ]
    assert found == [
        "http://a.example/debian/pool/main/z/zlib/zlib_1.tar.gz",
        "http://a.example/security/pool/updates/main/z/zlib/zlib_1.tar.gz",
        "http://a.example/debian/pool/main/libz/libzstd/libzstd_1.tar.gz",
        "http://a.example/security/pool/updates/main/libz/libzstd/libzstd_1.tar.gz",
    ]


def test_a_folder_of_a_python_projects_source(
    fetch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "carrier-1.tar.xz"
    content = {"carrier-1/src/thing/main.c": "one\n", "carrier-1/setup.py": ""}
    digest = _tar(fetch.DOWNLOADS / "put-by", content)
    archive = (fetch.DOWNLOADS / "put-by").read_bytes()
    page = (
        '<a href="https://b.example/carrier-0.tar.xz#sha256=0">carrier-0.tar.xz</a>'
        f'<a href="../../files/{name}#sha256={digest}" data-x="">{name}</a>'
    )

    def run(command: list[str], **_: object) -> str:
        assert command[1] == "download-file"
        wanted = {
            "https://a.example/simple/carrier/": page.encode(),
            f"https://a.example/files/{name}": archive,
        }
        Path(command[3]).write_bytes(wanted[command[2]])
        return ""

    monkeypatch.setenv("PIP_INDEX_URL", "https://a.example/simple/")
    monkeypatch.setattr(fetch, "run", run)
    pin = {"python_project": "carrier", "version": "1", "folder": "src/thing"}
    fetch.IMAGES.mkdir(exist_ok=True)
    fetch.PINS.write_text(json.dumps({"thing": {**pin, "files": {name: digest}}}))
    fetch.fetch("thing")
    assert (fetch.SOURCES / "thing/main.c").read_text() == "one\n"
    assert [path.name for path in fetch.SOURCES.iterdir()] == ["thing"]
