#!/usr/bin/env python3
"""Fetches third-party source: Debian's source packages, pinned by SHA-256 in sources.json.

Called by images/Makefile (`fetch.py NAME` makes build/sources/NAME, patched, and touches
.fetched in it) and by people: `fetch.py --pin NAME [SOURCE]` writes the pin of Debian's present
version. Uses the standard library only, because it also runs where no venv is.

Where the files come from is the machine's own affair: the mirror in its apt configuration, asked
for the suites below. What they contain is ours: a file whose hash differs is never used. Files
put into build/downloads by hand serve as well, so a machine without network can build.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import NamedTuple

RELEASE = "trixie"
IMAGES = Path(__file__).resolve().parent
BUILD = IMAGES.parent / "build"
PINS = IMAGES / "sources.json"
DOWNLOADS = BUILD / "downloads"
SOURCES = BUILD / "sources"
APT = BUILD / "apt"
APT_CONFIGURATION = Path("/etc/apt")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Debian's releases, as suites of an apt entry name them; other distributions' archives do not
# have the packages.
DEBIAN_SUITES = (
    "bullseye bookworm trixie forky duke sid oldoldstable oldstable stable testing unstable"
).split()


class FetchError(Exception):
    """What could not be had, and what to do about it."""


class Pin(NamedTuple):
    """One source package: which, and what its files contain."""

    debian_source: str
    version: str
    files: dict[str, str]
    """File name → SHA-256."""


def read_pins() -> dict[str, Pin]:
    return {name: Pin(**entry) for name, entry in json.loads(PINS.read_text()).items()}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(command: list[str], *, cwd: Path | None = None) -> str:
    """Standard output; `FetchError` with the last lines of standard error."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
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


def source_list() -> list[str]:
    """deb-src lines for RELEASE, its updates and its security fixes."""
    main: list[str] = []
    security: list[str] = []
    for uri, suites in apt_entries():
        bases = {re.split(r"[-/]", suite)[0] for suite in suites}
        if not bases & set(DEBIAN_SUITES):
            continue
        place = security if any(re.search(r"-security|/updates", s) for s in suites) else main
        if uri not in place:
            place.append(uri)
    if not main:
        raise FetchError(
            "this machine's apt configuration has no Debian archive to take the source from"
        )
    # The signature is checked where the machine has the keys; the pins hold without it too.
    options = f"[signed-by={KEYRING}] " if KEYRING.exists() else "[trusted=yes] "
    lines = [f"deb-src {options}{main[0]} {suite} main" for suite in (RELEASE, f"{RELEASE}-updates")]
    if security:
        lines.append(f"deb-src {options}{security[0]} {RELEASE}-security main")
    return lines


class Apt:
    """apt-get with lists and cache of its own under build/apt; needs no root."""

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

    def files(self, source: str) -> tuple[str, dict[str, str]]:
        """Version and files of the newest source package named `source`."""
        said = run([*self._command, "--print-uris", "--only-source", "source", source])
        files = {
            match[1]: match[2]
            for match in re.finditer(r"^'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})$", said, re.M)
        }
        if not files:
            raise FetchError(f"{RELEASE} has no source package '{source}'")
        listed = run(["apt-cache", *self._command[1:-1], "showsrc", "--only-source", source])
        for paragraph in listed.split("\n\n"):
            found = re.search(r"^Version: (\S+)$", paragraph, re.M)
            if found and all(digest in paragraph for digest in files.values()):
                return found[1], files
        raise FetchError(f"apt does not say which version of '{source}' it has")

    def download(self, source: str, version: str) -> None:
        """All files of one version, into build/downloads."""
        command = [*self._command, "--download-only", "--only-source"]
        run([*command, "source", f"{source}={version}"], cwd=DOWNLOADS)


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
        print(f"fetching {pin.debian_source} {pin.version}", file=sys.stderr, flush=True)
        reason = ""
        apt = Apt()
        for attempt in ("lists of an earlier run", "fresh lists"):
            try:
                if attempt == "fresh lists":
                    apt.update()
                elif not (APT / "sources.list").exists():
                    continue
                apt.download(pin.debian_source, pin.version)
                break
            except FetchError as error:
                reason = str(error)
        lacking = missing(pin)
    if lacking:
        wanted = "\n".join(f"  {pin.files[name]}  {name}" for name in lacking)
        raise FetchError(
            f"could not get Debian's source package {pin.debian_source} {pin.version}.\n"
            f"{reason or 'What was downloaded has other content than the pin says.'}\n"
            f"With these files (SHA-256, name) in {DOWNLOADS} it goes on without network:\n{wanted}"
        )


def patches(name: str) -> list[Path]:
    """Our own changes, in the order they are applied."""
    return sorted(IMAGES.glob(f"*/patches/{name}/*.patch"))


def recipe(name: str, pin: Pin) -> str:
    """Changes when the unpacked tree has to be made anew."""
    parts = [json.dumps(pin.files, sort_keys=True)]
    parts += [f"{path.parent.parent.parent.name}/{path.name} {sha256(path)}" for path in patches(name)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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
    dsc = next(file for file in pin.files if file.endswith(".dsc"))
    try:
        # The hashes above are the check; dpkg-source's own wants keys of former maintainers.
        run(["dpkg-source", "--no-check", "--no-copy", "-q", "-x", str(DOWNLOADS / dsc), str(fresh)])
        for patch in patches(name):
            run(["patch", "-d", str(fresh), "-p1", "--no-backup-if-mismatch", "-i", str(patch)])
        (fresh / ".fetched").write_text(wanted + "\n")
        shutil.rmtree(SOURCES / name, ignore_errors=True)
        fresh.rename(SOURCES / name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def pin(name: str, source: str) -> None:
    """Write Debian's present version of `source` into sources.json as `name`."""
    apt = Apt()
    apt.update()
    version, files = apt.files(source)
    entries = json.loads(PINS.read_text()) if PINS.exists() else {}
    entries[name] = {"debian_source": source, "version": version, "files": files}
    PINS.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
    print(f"{name}: {source} {version}, {len(files)} files")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="sources to unpack and patch")
    parser.add_argument("--all", action="store_true", help="every source of sources.json")
    parser.add_argument("--pin", action="store_true", help="NAME [SOURCE]: pin the present version")
    arguments = parser.parse_args()
    try:
        if arguments.pin:
            pin(arguments.names[0], arguments.names[-1])
        else:
            for name in sorted(read_pins()) if arguments.all else arguments.names:
                fetch(name)
    except FetchError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
