#!/usr/bin/env python3
"""Fetches third-party source, pinned by SHA-256 in sources.json: Debian's source packages, and what
a Python project's source archive carries where Debian's release has no version that would do.

Called by images/Makefile (`fetch.py NAME` makes build/sources/NAME, patched, and touches
.fetched in it) and by people: `fetch.py --pin NAME [SOURCE]` writes the pin of Debian's present
version. Uses the standard library, and of a Python project's index what pip is configured for.

Where the files come from is the machine's own affair: the mirror in its apt configuration, the
index of its pip. Debian's are taken from the mirror's pool by name: lists name the newest version
only, and mirrors were seen to list one long before they had it, while their pool still had the
older. What the files contain is ours: one whose hash differs is never used. Files put into
build/downloads by hand serve as well, so a machine without network can build.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin

RELEASE = "trixie"
IMAGES = Path(__file__).resolve().parent
BUILD = IMAGES.parent / "build"
PINS = IMAGES / "sources.json"
DOWNLOADS = BUILD / "downloads"
SOURCES = BUILD / "sources"
APT = BUILD / "apt"
APT_CONFIGURATION = Path("/etc/apt")
APT_HELPER = "/usr/lib/apt/apt-helper"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Debian's releases, as suites of an apt entry name them; other distributions' archives do not
# have the packages.
DEBIAN_SUITES = {
    *("bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
    *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
}


class FetchError(Exception):
    """What could not be had, and what to do about it."""


class Pin(NamedTuple):
    """One source package: which, and what its files contain."""

    version: str
    files: dict[str, str]
    """File name → SHA-256: upstream's tar files and, mostly, Debian's (patches)."""
    debian_source: str = ""
    """Its name in Debian; empty: the next two say."""
    python_project: str = ""
    """Whose source archive, from the package index, carries it."""
    folder: str = ""
    """Where it is in there."""

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.debian_source or self.python_project} {self.version}"


def read_pins() -> dict[str, Pin]:
    return {name: Pin(**entry) for name, entry in json.loads(PINS.read_text()).items()}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(command: list[str], *, cwd: Path | None = None) -> str:
    """Standard output; `FetchError` with the last lines of standard error."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError:
        raise FetchError(
            f"{command[0]} is not installed; 'make setup' as root installs what is needed"
        ) from None
    if done.returncode != 0:
        said = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise FetchError(f"'{' '.join(command[:1] + command[-2:])}' failed:\n  {said}")
    return done.stdout


# ---- the machine's own Debian mirror ---------------------------------------------------------


def apt_entries() -> list[tuple[str, list[str]]]:
    """(URI, suites) of every enabled binary or source entry of this machine."""
    entries: list[tuple[str, list[str]]] = []
    for path in sorted(APT_CONFIGURATION.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(errors="replace")):
            lines = [line for line in stanza.splitlines() if not line.startswith("#")]
            fields: dict[str, str] = {}
            key = ""
            for line in lines:
                if line[:1].isspace():
                    fields[key] = fields.get(key, "") + " " + line.strip()
                elif ":" in line:
                    key, _, value = line.partition(":")
                    key = key.strip().lower()
                    fields[key] = value.strip()
            if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
                continue
            for uri in fields.get("uris", "").split():
                entries.append((uri, fields.get("suites", "").split()))
    lists = [APT_CONFIGURATION / "sources.list"]
    for path in lists + sorted(APT_CONFIGURATION.glob("sources.list.d/*.list")):
        if path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                found = re.match(r"\s*deb(?:-src)?\s+(?:\[[^]]*\]\s*)?(\S+)\s+(\S+)", line)
                if found:
                    entries.append((found[1], [found[2]]))
    return entries


def archives() -> tuple[str, str | None]:
    """URIs of the machine's Debian archive and, where it has one, of the security archive."""
    main: list[str] = []
    security: list[str] = []
    for uri, suites in apt_entries():
        bases = {re.split(r"[-/]", suite)[0] for suite in suites}
        if not bases & DEBIAN_SUITES:
            continue
        place = security if any(re.search(r"-security|/updates", s) for s in suites) else main
        place.append(uri.rstrip("/"))
    if not main:
        raise FetchError(
            "this machine's apt configuration has no Debian archive to take the source from"
        )
    return main[0], security[0] if security else None


def source_list() -> list[str]:
    """deb-src lines for RELEASE, its updates and its security fixes."""
    main, security = archives()
    # The signature is checked where the machine has the keys; the pins hold without it too.
    options = f"[signed-by={KEYRING}] " if KEYRING.exists() else "[trusted=yes] "
    lines = [f"deb-src {options}{main} {suite} main" for suite in (RELEASE, f"{RELEASE}-updates")]
    if security:
        lines.append(f"deb-src {options}{security} {RELEASE}-security main")
    return lines


def pool_uris(pin: Pin, name: str) -> list[str]:
    """Where the archives' pools have a file: libNAME is in a folder `libN`, others in `n`."""
    source = pin.debian_source
    folder = f"main/{source[:4] if source.startswith('lib') else source[0]}/{source}"
    main, security = archives()
    uris = [f"{main}/pool/{folder}/{name}"]
    if security:
        uris.append(f"{security}/pool/updates/{folder}/{name}")
    return uris


def download(pin: Pin, name: str) -> None:
    """One file into build/downloads, by apt's own downloader, which knows the machine's proxies."""
    reasons = []
    for uri in pool_uris(pin, name) if pin.debian_source else index_uris(pin, name):
        try:
            run(
                [
                    APT_HELPER,
                    "download-file",
                    uri,
                    str(DOWNLOADS / name),
                    f"SHA256:{pin.files[name]}",
                ]
            )
            return
        except FetchError as error:
            reasons.append(str(error))
    raise FetchError("\n".join(reasons))


# ---- the machine's own package index of Python -------------------------------------------------


def package_index() -> str:
    """The one that pip is configured for here, or has by itself."""
    if given := os.environ.get("PIP_INDEX_URL"):
        return given
    pip = [sys.executable, "-m", "pip"]
    for line in run([*pip, "config", "list"]).splitlines():
        if match := re.fullmatch(r"(?:global|install|download)\.index-url='(.*)'", line):
            return match[1]
    words = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    return run([sys.executable, "-c", words]).strip()


def index_uris(pin: Pin, name: str) -> list[str]:
    """Where the index has a file (the simple repository API: a page of links)."""
    page = f"{package_index().rstrip('/')}/{pin.python_project}/"
    listing = DOWNLOADS / f".{pin.python_project}.html"
    run([APT_HELPER, "download-file", page, str(listing)])
    found = []
    for link in re.findall(r'href="([^"]+)"', listing.read_text(errors="replace")):
        uri = urldefrag(urljoin(page, html.unescape(link))).url
        if uri.rpartition("/")[2] == name:
            found.append(uri)
    listing.unlink()
    if not found:
        raise FetchError(f"the package index has no {name}")
    return found


class Apt:
    """What versions there are, by lists of its own under build/apt; needs no root."""

    def __init__(self) -> None:
        for folder in ("lists/partial", "cache/archives/partial", "parts"):
            (APT / folder).mkdir(parents=True, exist_ok=True)
        self._list = APT / "sources.list"
        self._command = [
            "apt-get",
            *("-o", f"Dir::Etc::SourceList={self._list}"),
            *("-o", f"Dir::Etc::SourceParts={APT / 'parts'}"),
            *("-o", f"Dir::State::lists={APT / 'lists'}"),
            *("-o", f"Dir::Cache={APT / 'cache'}"),
            *("-o", "APT::Sandbox::User="),
            "-q",
        ]

    def update(self) -> None:
        lines = source_list()
        self._list.write_text("\n".join(lines) + "\n")
        try:
            run([*self._command, "-o", "APT::Update::Error-Mode=any", "update"])
        except FetchError as error:
            if "NO_PUBKEY" not in str(error) and "not signed" not in str(error):
                raise
            unsigned = [re.sub(r"\[[^]]*\]", "[trusted=yes]", line) for line in lines]
            self._list.write_text("\n".join(unsigned) + "\n")
            run([*self._command, "-o", "APT::Update::Error-Mode=any", "update"])

    def versions(self, source: str) -> list[Pin]:
        """Every version of a source package that the archive lists, newest first."""
        options = self._command[1:-1]
        listed = run(["apt-cache", *options, "showsrc", "--only-source", source])
        pins: dict[str, Pin] = {}
        for paragraph in listed.split("\n\n"):
            version = re.search(r"^Version: (\S+)$", paragraph, re.MULTILINE)
            files = re.search(r"^Checksums-Sha256:\n((?: .*\n?)+)", paragraph, re.MULTILINE)
            if version and files:
                rows = [line.split() for line in files[1].splitlines()]
                tars = {row[2]: row[0] for row in rows if re.search(r"\.tar\.\w+$", row[2])}
                pins[version[1]] = Pin(version[1], tars, source)
        if not pins:
            raise FetchError(f"{RELEASE} has no source package '{source}'")
        return sorted(pins.values(), key=functools.cmp_to_key(_newest_first))


def _newest_first(one: Pin, other: Pin) -> int:
    compare = ["dpkg", "--compare-versions", one.version, "gt", other.version]
    return -1 if subprocess.run(compare, check=False).returncode == 0 else 1


# ---- pinned files, unpacked and patched ------------------------------------------------------


def missing(pin: Pin) -> list[str]:
    """The files of `pin` that are not there with the right content; wrong ones are removed."""
    lacking = []
    for name, digest in pin.files.items():
        path = DOWNLOADS / name
        if not path.is_file():
            lacking.append(name)
        elif sha256(path) != digest:
            path.unlink()
            lacking.append(name)
    return lacking


def have_files(pin: Pin) -> None:
    """Download what is missing; `FetchError` says how to bring it by hand."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # `make -j` starts several of us
        if not missing(pin):
            return
        print(f"fetching {pin.title}", file=sys.stderr, flush=True)
        reasons = ""
        for name in missing(pin):
            try:
                download(pin, name)
            except FetchError as error:
                reasons += f"{error}\n"
        lacking = missing(pin)
    if lacking:
        wanted = "\n".join(f"  {pin.files[name]}  {name}" for name in lacking)
        raise FetchError(
            f"could not get the source package {pin.title}.\n"
            f"{reasons}With these files (SHA-256, name) in {DOWNLOADS} it goes on without it:\n"
            f"{wanted}"
            + (
                f"\nAnother version is pinned by: images/fetch.py --pin NAME {pin.debian_source}"
                if pin.debian_source
                else ""
            )
        )


def patches(name: str) -> list[Path]:
    """Our own changes, in the order they are applied."""
    return sorted(IMAGES.glob(f"*/patches/{name}/*.patch"))


def recipe(name: str, pin: Pin) -> str:
    """Changes when the unpacked tree has to be made anew."""
    parts = [json.dumps(pin.files, sort_keys=True)]
    parts += [
        f"{path.parent.parent.parent.name}/{path.name} {sha256(path)}" for path in patches(name)
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def unpack(pin: Pin, to: Path) -> None:
    """Upstream's tree with Debian's patches, as source format 3.0 (quilt) defines it; of a Python
    project's archive the folder."""
    if pin.python_project:
        whole = to.with_name(f"{to.name}.whole")
        shutil.rmtree(whole, ignore_errors=True)
        for name in pin.files:
            extract(DOWNLOADS / name, whole)
        shutil.move(whole / pin.folder, to)
        shutil.rmtree(whole)
        return
    to.mkdir()
    for name in sorted(pin.files):
        if match := re.search(r"\.orig(?:-([\w-]+))?\.tar\.", name):
            extract(DOWNLOADS / name, to / (match[1] or ""))
    for name in pin.files:
        if ".debian.tar." in name:
            extract(DOWNLOADS / name, to, inner="debian")
    series = to / "debian/patches/series"
    if series.is_file():
        for line in series.read_text().splitlines():
            if words := line.partition("#")[0].split():
                apply(to / "debian/patches" / words[0], to)


def extract(archive: Path, to: Path, inner: str | None = None) -> None:
    """Unpack a tar file; its one top folder, where it has one that is not `inner`, becomes `to`."""
    scratch = to.with_name(f"{to.name}.{archive.name}")
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "tar_filter"):
            tar.extractall(scratch, filter="tar")
        else:  # before Python 3.11.4; what is in it is pinned by its hash
            tar.extractall(scratch)
    entries = list(scratch.iterdir())
    top = entries[0] if len(entries) == 1 and entries[0].name != inner else scratch
    to.mkdir(exist_ok=True)
    for entry in list(top.iterdir()):
        shutil.move(entry, to / entry.name)
    shutil.rmtree(scratch)


def apply(patch: Path, to: Path) -> None:
    run(["patch", "-d", str(to), "-p1", "--no-backup-if-mismatch", "-t", "-i", str(patch)])


def fetch(name: str) -> None:
    """Make build/sources/NAME, unless it is there as pins and patches want it."""
    pins = read_pins()
    if name not in pins:
        raise FetchError(f"{PINS.name} has no '{name}'; it has {', '.join(sorted(pins))}")
    pin = pins[name]
    stamp = SOURCES / name / ".fetched"
    wanted = recipe(name, pin)
    if stamp.exists() and stamp.read_text().strip() == wanted:
        stamp.touch()
        return
    have_files(pin)
    SOURCES.mkdir(parents=True, exist_ok=True)
    fresh = SOURCES / f".{name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        unpack(pin, fresh)
        for patch in patches(name):
            apply(patch, fresh)
        (fresh / ".fetched").write_text(wanted + "\n")
        shutil.rmtree(SOURCES / name, ignore_errors=True)
        fresh.rename(SOURCES / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_pin(name: str, source: str, *, upstream_only: bool) -> None:
    """Write the newest version of `source` that can be had into sources.json as `name`."""
    apt = Apt()
    apt.update()
    for pin in apt.versions(source):
        if upstream_only:
            original = {k: v for k, v in pin.files.items() if ".debian.tar." not in k}
            pin = pin._replace(files=original)
        try:
            have_files(pin)
        except FetchError as error:
            print(f"{source} {pin.version} is listed but cannot be had: {error}", file=sys.stderr)
            continue
        entries = json.loads(PINS.read_text()) if PINS.exists() else {}
        entries[name] = {key: value for key, value in pin._asdict().items() if value}
        PINS.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
        print(f"{name}: {source} {pin.version}, {len(pin.files)} files")
        return
    raise FetchError(f"no version of '{source}' can be had")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="sources to unpack and patch")
    parser.add_argument("--all", action="store_true", help="every source of sources.json")
    parser.add_argument("--pin", action="store_true", help="NAME [SOURCE]: pin the newest version")
    parser.add_argument("--upstream-only", action="store_true", help="pin without Debian's changes")
    arguments = parser.parse_args()
    try:
        if arguments.pin:
            source, upstream_only = arguments.names[-1], arguments.upstream_only
            write_pin(arguments.names[0], source, upstream_only=upstream_only)
        else:
            for name in sorted(read_pins()) if arguments.all else arguments.names:
                fetch(name)
    except FetchError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
