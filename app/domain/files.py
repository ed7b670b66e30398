"""What an application sees of files: what is asked, and what the answer says.

The answers come from `cse-files` (images/filesystem/files), which runs among the application's own
processes: these may forge them. So nothing in a line is taken for granted here; what does not fit
is an error of the application, never of the server. Lines are words `key=value`, percent-encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import quote, unquote_to_bytes

from pydantic import ConfigDict, Field, ValidationError

from app.domain.errors import InvalidSpecification, RuntimeFailure
from app.domain.model import Model

PATH_MAX = 4095
LINE_MAX = 64 * 1024
"""Four paths, each byte encoded in three."""

Encoded = Annotated[str, Field(pattern=r"^[A-Za-z0-9/._~%+:@,-]*$", max_length=3 * PATH_MAX)]
"""A path, or a name, with all other bytes percent-encoded: names of files need not be text."""


def encode(path: str) -> Encoded:
    """From text, where lone surrogates stand for bytes that are not UTF-8."""
    return quote(path.encode("utf-8", "surrogateescape"), safe="/._~+:@,-")


def encode_path(path: str, pointer: str = "/path") -> Encoded:
    """The same of an absolute path. Raises InvalidSpecification."""
    if not path.startswith("/"):
        raise InvalidSpecification(
            f"'{path}' is no absolute path", pointer=pointer, remedy="begin it with /"
        )
    if "\0" in path or len(path.encode("utf-8", "surrogateescape")) > PATH_MAX:
        raise InvalidSpecification(
            "no path of a file", pointer=pointer, remedy=f"at most {PATH_MAX} bytes, none NUL"
        )
    return encode(path)


class FilesRequest(Model):
    """One question to `cse-files`."""

    what: Literal["list", "explain", "content", "changes", "archive"]
    path: Encoded
    after: Encoded = ""
    """list, changes: behind this one."""
    limit: int = Field(default=-1, ge=-1)
    """list, changes: entries; content: bytes. -1: all."""
    offset: int = Field(default=0, ge=0)
    changes_only: bool = False

    @property
    def words(self) -> list[str]:
        """The arguments."""
        most = str(self.limit if self.limit >= 0 or self.what == "content" else 2**62)
        rest = {
            "list": [self.after, most],
            "changes": [self.after, most],
            "explain": [],
            "content": [str(self.offset), most],
            "archive": ["changes" if self.changes_only else "all"],
        }
        return [self.what, self.path, *rest[self.what]]


class FilesPart(Model):
    """Bytes of the answer; empty ones only show that somebody still reads."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    data: bytes


class CommandOutput(Protocol):
    """What a command writes, read by one thread."""

    def read(self, timeout_s: float) -> bytes | None:
        """Of its standard output, empty where nothing came in time; None at the end."""

    def close(self) -> tuple[int, str]:
        """End it where it still runs; exit code, and the end of what it wrote to stderr."""


Kind = Literal[
    "file", "directory", "link", "fifo", "socket", "character-device", "block-device", "unknown"
]
Source = Literal["upper", "directory", "archive", "memory", "encrypted", "computed"]
Change = Literal["added", "changed", "removed"]


class FileStatus(Model):
    """As `stat` shows it to the application."""

    kind: Kind = "unknown"
    size: int = 0
    mode: str = Field(default="0000", examples=["0755"])
    """Permissions, octal."""
    uid: int = 0
    gid: int = 0
    modified: datetime | None = None


class FileEntry(FileStatus):
    """A name in a directory."""

    name: str
    encoded: str | None = None
    """The name percent-encoded, where it is not text: to be used in the place of `name` in URLs."""
    owner: str | None = None
    """The name of `uid`, where the application's /etc/passwd has one."""
    link: str | None = None
    """What a symbolic link says."""
    mount: str | None = None
    """The mount that serves it; absent: the surroundings of the runtime."""
    source: Source | None = None
    """What the layer that has it is."""
    layer: int | None = None
    """That layer's number, from the top."""
    state: Literal["unfilled", "damaged"] | None = None
    """Of a file of an archive: never opened yet; what the archive does not yield."""
    change: Change | None = None
    """What the application did with it in a `cow`. Removed names are listed, too."""
    within: bool = False
    """A directory in which something may have been changed."""


class Directory(Model):
    """A part of a directory, in the order of the names' bytes."""

    items: list[FileEntry]
    next: str | None = None
    """Pass as `after` for the following part; absent at the end."""


class FileLayer(FileStatus):
    """One layer of a mount, and what it has at the path."""

    number: int
    source: Source
    root: str
    """Its real directory, as the application sees it."""
    host_root: str | None = None
    """The same on the host."""
    archive: str | None = None
    """The archive's path on the host, or in another mount."""
    has: bool = False
    """Whether it has something at this path; `kind` and the others tell of that."""
    hides: bool = False
    """It has a whiteout here: what layers below have does not show."""


class Explanation(FileStatus):
    """Who serves a path, and why."""

    path: str
    """With links followed, but for the last name."""
    encoded: str | None = None
    exists: bool
    owner: str | None = None
    link: str | None = None
    mount: str | None = None
    source: Source | None = None
    layer: int | None = None
    state: Literal["unfilled", "damaged"] | None = None
    change: Change | None = None
    real: str | None = None
    """The real file, as the application sees it."""
    host: str | None = None
    """The real file on the host, where it lies in something that the host has."""
    why: str
    """In words."""
    layers: list[FileLayer] = []
    """All layers of the mount, topmost first."""


class FileChange(FileStatus):
    """One path that differs from what lies below; status as it is now, before where removed."""

    path: str
    encoded: str | None = None
    change: Change
    differs: list[Literal["type", "content", "mode", "owner", "time"]] = []
    size_before: int | None = None
    """Of what lies below."""


class ChangedMount(Model):
    """A mount, and whether what the application changed in it can be told."""

    path: str
    untracked: str | None = None
    """Why it cannot."""


class Changes(Model):
    """A part of what an application changed."""

    items: list[FileChange]
    mounts: list[ChangedMount] = []
    next: str | None = None
    """Pass as `after` for the following part; absent at the end."""


# ---- from lines -------------------------------------------------------------------------------

Words = dict[str, str]
_NUMBERS = ("size", "uid", "gid", "layer", "number", "size_before")
STATUS_WORDS = ("kind", "size", "mode", "uid", "gid", "modified")


def lines(data: Iterable[bytes]) -> Iterator[tuple[str, Words]]:
    """Verb and words of each line."""
    rest = b""
    for part in data:
        *whole, rest = (rest + part).split(b"\n")
        if len(rest) > LINE_MAX or any(len(line) > LINE_MAX for line in whole):
            raise RuntimeFailure("what the application says of its files is no answer")
        yield from map(_words, whole)


def _words(line: bytes) -> tuple[str, Words]:
    verb, *pairs = line.decode("ascii", "replace").split(" ")
    return verb, dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def text(encoded: str) -> str:
    """For people: what is not UTF-8 is replaced."""
    return unquote_to_bytes(encoded).decode("utf-8", "replace")


def named(key: str, words: Words) -> dict[str, Any]:
    """A name's text, and the bytes where it is not all of it."""
    raw = unquote_to_bytes(words.get(key, ""))
    shown = raw.decode("utf-8", "replace")
    return {key: shown, "encoded": None if shown.encode() == raw else quote(raw, safe="/")}


def fields(words: Words, *keys: str) -> dict[str, Any]:
    """Those of the words that are there, as the models take them."""
    found: dict[str, Any] = {key: text(words[key]) for key in keys if key in words}
    try:
        for key in _NUMBERS:
            if key in found:
                found[key] = int(found[key])
        if "mode" in found:
            found["mode"] = f"{int(found['mode']) & 0o7777:04o}"
        if "modified" in found:
            found["modified"] = _moment(found["modified"])
    except ValueError as error:
        raise RuntimeFailure("what the application says of its files is no answer") from error
    return found


def _moment(seconds: str) -> datetime | None:
    number = float(seconds)
    try:
        return datetime.fromtimestamp(number, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def made(kind: Any, /, **values: Any) -> Any:
    """A model, or the application's error."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise RuntimeFailure("what the application says of its files is no answer") from error


def directory(data: Iterable[bytes]) -> Directory:
    """The answer to `list`."""
    items: list[FileEntry] = []
    after: str | None = None
    last = ""
    keys = (*STATUS_WORDS, "owner", "link", "mount", "source", "layer", "state", "change")
    for verb, words in lines(data):
        if verb == "entry":
            last = words.get("name", "")
            given = {**fields(words, *keys), **named("name", words), "within": "within" in words}
            items.append(made(FileEntry, **given))
        elif verb == "more":
            after = last
    return Directory(items=items, next=after)


def changes(data: Iterable[bytes]) -> Changes:
    """The answer to `changes`."""
    items: list[FileChange] = []
    mounts: list[ChangedMount] = []
    after: str | None = None
    last = ""
    for verb, words in lines(data):
        if verb == "change":
            last = words.get("path", "")
            differs = [one for one in text(words.get("differs", "")).split(",") if one]
            given = fields(words, *STATUS_WORDS, "change", "size_before")
            items.append(made(FileChange, **given, **named("path", words), differs=differs))
        elif verb == "mount":
            mounts.append(made(ChangedMount, **fields(words, "path", "untracked")))
        elif verb == "more":
            after = last
    return Changes(items=items, mounts=mounts, next=after)
