"""`cse fs`: the files of an application as it sees them, who serves them, what it changed."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import typer

from app.cli.client import Api, AsJson, connect
from app.cli.layer import unpack
from app.cli.output import say, show_json, show_table
from app.domain.errors import InvalidSpecification
from app.domain.files import ChangedMount, Changes, FileChange, FileEntry

_PAGE = 5000
_LETTERS = {"added": "A", "changed": "C", "removed": "D"}
_KINDS = {"directory": "d", "link": "l", "fifo": "p", "socket": "s"}
_KINDS |= {"character-device": "c", "block-device": "b"}


def register(commands: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Files as an application sees them; it need not run.")
    for command in (ls, cat, explain, diff, commit):
        group.command(command.__name__)(command)
    commands.add_typer(group, name="fs")


def ls(
    name: str,
    path: Annotated[str, typer.Argument(help="A directory, or a file in it.")] = "/",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List a directory, with who serves each name and what was changed (A, C, D as in diff)."""
    client = connect(api)
    after: str | None = ""
    items: list[FileEntry] = []
    while after is not None:
        page = client.list_files(name, path=_text(path), limit=_PAGE, after=after)
        items += page.items
        after = page.next
    if as_json:
        show_json(items)
        return
    headings = ["MODE", "OWNER", "SIZE", "MODIFIED", "SERVED BY", "", "NAME"]
    show_table(headings, [_row(item) for item in items])


def cat(name: str, path: str, api: Api = None) -> None:
    """Write a file to standard output, as the application would read it."""
    for part in connect(api).read_file(name, path=_text(path)):
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def explain(name: str, path: str, api: Api = None, as_json: AsJson = False) -> None:
    """Say which mount and layer serve a path, where its content really is, and why."""
    found = connect(api).explain_file(name, path=_text(path))
    if as_json:
        show_json(found)
        return
    say(f"{found.path}: {found.why}")
    for label, value in (
        ("mount", found.mount),
        ("link to", found.link),
        ("real file", found.real),
        ("on the host", found.host),
    ):
        if value is not None:
            say(f"  {label + ':':<13}{value}")
    for layer in found.layers:
        place = layer.archive or layer.host_root or layer.root
        says = f"{layer.kind}, {layer.size} bytes" if layer.has else "nothing here"
        if layer.hides:
            says += ", hides what is below"
        mark = "→" if layer.number == found.layer else " "
        say(f"{mark} layer {layer.number}: {layer.source} {place}: {says}")


def diff(
    name: str,
    mount: Annotated[
        str, typer.Argument(metavar="[PATH]", help="A mount, or a path in it; else all mounts.")
    ] = "/",
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """List what the application added (A), changed (C) and removed (D), in the manner of docker
    diff."""
    client = connect(api)
    after: str | None = ""
    items: list[FileChange] = []
    mounts: dict[str, str | None] = {}
    while after is not None:
        page = client.list_file_changes(name, path=_text(mount), limit=_PAGE, after=after)
        items += page.items
        mounts |= {one.path: one.untracked for one in page.mounts}
        after = page.next
    if as_json:
        show_json(
            Changes(
                items=items,
                mounts=[ChangedMount(path=path, untracked=why) for path, why in mounts.items()],
            )
        )
        return
    for item in items:
        say(f"{_LETTERS[item.change]} {item.path}{_about(item)}")
    for path, why in mounts.items():
        if why is not None:
            sys.stderr.write(f"{path}: not known: {why}\n")


def commit(
    name: str,
    mount: Annotated[str, typer.Argument(metavar="PATH", help="A mount, or a path in it.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="FILE.tar.gz, FILE.tar, or - .")
    ] = None,
    layer: Annotated[
        Path | None, typer.Option("--layer", help="A new directory, to be used as 'lower'.")
    ] = None,
    changes: Annotated[
        bool, typer.Option("--changes", help="Only what was changed; removed names as '.wh.NAME'.")
    ] = False,
    api: Api = None,
) -> None:
    """Save a tree as the application sees it: as an archive, or as a directory. Both can be the
    'lower' of another application. Stop it first where it may be writing."""
    if (output is None) == (layer is None):
        raise InvalidSpecification(
            "it is not said where to", pointer="/output", remedy="give -o FILE or --layer DIRECTORY"
        )
    if layer is not None and changes:
        raise InvalidSpecification(
            "a layer is the whole tree", pointer="/changes", remedy="leave --changes out"
        )
    plain = layer is not None or (output is not None and output.suffix == ".tar")
    form: Literal["tar", "tar.gz"] = "tar" if plain else "tar.gz"
    parts = connect(api).archive_files(name, path=_text(mount), changes=changes, format=form)
    if layer is not None:
        unpack(parts, layer)
    elif str(output) == "-":
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    elif output is not None:
        with _beside(output) as file:
            for part in parts:
                file.write(part)


def _text(path: str) -> str:
    """What a URL's text can say."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidSpecification(
            f"{path!r} is not UTF-8", pointer="/path", remedy="ask the REST interface, with %XX"
        ) from None
    return path


@contextlib.contextmanager
def _beside(output: Path) -> Iterator[BinaryIO]:
    """Nothing of the name is there before the whole is."""
    place = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with place.open("xb") as file:
            yield file
        place.replace(output)
    except OSError as error:
        raise InvalidSpecification(
            f"{output} cannot be written: {error.strerror}", pointer="/output"
        ) from error
    finally:
        place.unlink(missing_ok=True)


def _row(item: FileEntry) -> tuple[object, ...]:
    served = (item.source or "") + (f" ({item.state})" if item.state else "")
    link = f" → {item.link}" if item.link is not None else ""
    return (
        f"{_KINDS.get(item.kind, '-')}{stat.filemode(int(item.mode, 8))[1:]}",
        item.owner or item.uid,
        item.size,
        f"{item.modified:%Y-%m-%d %H:%M:%S}" if item.modified else "",
        served,
        _LETTERS[item.change] if item.change else "…" if item.within else "",
        f"{item.name}{link}",
    )


def _about(item: FileChange) -> str:
    if item.kind != "file":
        differs = ", ".join(item.differs)
        return f"  ({differs})" if differs else ""
    before, now = item.size_before, item.size
    sizes = f"{before} → {now}" if item.change == "changed" and before != now else f"{now}"
    said = [sizes, *(one for one in item.differs if one not in ("content", "time"))]
    return f"  ({', '.join(said)})"
