"""What applications say of their files is not believed; archives of theirs stay in their place."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app.agent import file_counters
from app.cli.layer import unpack
from app.domain.errors import Conflict, CseError, InvalidSpecification, RuntimeFailure
from app.domain.files import FilesRequest, changes, directory, encode, encode_path
from app.domain.served import explanation


def test_names_are_bytes() -> None:
    raw = os.fsdecode(b"/a b/\xff%\n")
    assert encode(raw) == "/a%20b/%FF%25%0A"
    (entry,) = directory([b"entry name=%FF%25%0A kind=file size=3 mode=420\n"]).items
    assert (entry.name, entry.encoded, entry.mode) == ("\ufffd%\n", "%FF%25%0A", "0644")
    assert directory([b"entry name=a%20b kind=file\n"]).items[0].encoded is None


def test_lines_may_come_in_pieces_and_the_last_name_is_the_next_page() -> None:
    page = directory([b"entry name=a kind=fi", b"le\nentry na", b"me=b%FF kind=link\nmore\n"])
    assert [one.name for one in page.items] == ["a", "b\ufffd"]
    assert page.next == "b%FF"


@pytest.mark.parametrize(
    "line",
    [
        b"entry name=a kind=elephant\n",
        b"entry name=a size=many\n",
        b"entry name=a size=1 mode=\xff\n",
        b"change path=/a change=burnt\n",
        b"entry name=a" + b"%41" * 40_000 + b"\n",
        b"x" * 200_000,
    ],
)
def test_what_is_no_answer_is_the_applications_failure(line: bytes) -> None:
    read = changes if line.startswith(b"change") else directory
    with pytest.raises(RuntimeFailure):
        read([line])


@pytest.mark.parametrize("time", ["1e400", "99999999999999", "-99999999999999", "nan"])
def test_times_that_no_calendar_has(time: str) -> None:
    assert directory([f"entry name=a modified={time}\n".encode()]).items[0].modified is None


@pytest.mark.parametrize("path", ["", "a", "/a\0", "/" + "é" * 3000])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(InvalidSpecification):
        encode_path(path)


def test_the_words_of_a_request() -> None:
    asked = FilesRequest(what="content", path=encode_path("/a b"), offset=3)
    assert asked.words == ["content", "/a%20b", "3", "-1"]


def test_where_the_host_has_it() -> None:
    lines = (
        b"surroundings runtime=namespace\nbind inside=/run/cse/data outside=/s/data\n"
        b"memory inside=/run/cse/private\npath path=/w/a kind=file size=1 mount=/w layer=0 "
        b"source=upper real=/run/cse/data/fs-0/upper/a\nmount path=/w cow=1 read_only=0\n"
        b"layer number=0 source=upper root=/run/cse/data/fs-0/upper kind=file size=1\n"
        b"layer number=1 source=archive root=/run/cse/private/fs/a0/tree from=/x.tar\n"
    )
    found = explanation([lines])
    assert found.host == "/s/data/fs-0/upper/a"
    assert found.layers[1].archive == "/x.tar" and found.layers[1].host_root is None
    assert found.why == "made by the application: nothing of this name lies below"


# ---- archives ---------------------------------------------------------------------------------

Fill = Callable[[tarfile.TarFile], None]


def tar(fill: Fill) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        fill(made)
    return data.getvalue()


def member(made: tarfile.TarFile, name: str, kind: bytes, **more: object) -> None:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    made.addfile(info, io.BytesIO(b"x" * info.size))


def through_a_link(made: tarfile.TarFile) -> None:
    member(made, "out", tarfile.SYMTYPE, linkname="../..")
    member(made, "out/evil", tarfile.REGTYPE, size=1)


def over_a_link(made: tarfile.TarFile) -> None:
    member(made, "evil", tarfile.SYMTYPE, linkname="../evil")
    member(made, "evil", tarfile.REGTYPE, size=1)


def upwards(made: tarfile.TarFile) -> None:
    member(made, "a/../../evil", tarfile.REGTYPE, size=1)


def hard_link_to_outside(made: tarfile.TarFile) -> None:
    member(made, "evil", tarfile.LNKTYPE, linkname="../outside")


def directory_over_a_link(made: tarfile.TarFile) -> None:
    member(made, "d", tarfile.SYMTYPE, linkname="..")
    member(made, "d", tarfile.DIRTYPE, mode=0o700)


@pytest.mark.parametrize(
    "fill", [through_a_link, over_a_link, upwards, hard_link_to_outside, directory_over_a_link]
)
def test_nothing_is_written_outside_the_layer(tmp_path: Path, fill: Fill) -> None:
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(CseError, match="cannot be filled"):
        unpack(iter([tar(fill)]), tmp_path / "layer")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["outside"]
    assert (tmp_path / "outside").read_text() == "mine"


def test_a_layer_keeps_links_modes_and_times_but_no_devices_and_set_ids(tmp_path: Path) -> None:
    def fill(made: tarfile.TarFile) -> None:
        member(made, "./", tarfile.DIRTYPE, mode=0o755, mtime=5)
        member(made, "d/", tarfile.DIRTYPE, mode=0o555, mtime=7)
        member(made, "d/f", tarfile.REGTYPE, size=3, mode=0o4755, mtime=9)
        member(made, "d/link", tarfile.SYMTYPE, linkname="/etc/passwd")
        member(made, "d/same", tarfile.LNKTYPE, linkname="d/f", mode=0o755, mtime=9)
        member(made, "d/null", tarfile.CHRTYPE, devmajor=1, devminor=3)

    data = tar(fill)
    pieces = (data[at : at + 700] for at in range(0, len(data), 700))
    unpack(pieces, tmp_path / "layer")
    place = tmp_path / "layer/d"
    assert sorted(one.name for one in place.iterdir()) == ["f", "link", "same"]
    assert place.stat().st_mode & 0o7777 == 0o555 and place.stat().st_mtime == 7
    assert (place / "f").stat().st_mode & 0o7777 == 0o755
    assert (place / "f").stat().st_ino == (place / "same").stat().st_ino
    assert (place / "link").readlink() == Path("/etc/passwd")
    with pytest.raises(Conflict):
        unpack(iter([data]), tmp_path / "layer")
    place.chmod(0o755)


def test_half_an_archive_leaves_no_layer(tmp_path: Path) -> None:
    data = tar(lambda made: member(made, "big", tarfile.REGTYPE, size=5000))
    with pytest.raises(CseError):
        unpack(iter([data[:3000]]), tmp_path / "layer")
    assert not (tmp_path / "layer").exists()


# ---- counters ---------------------------------------------------------------------------------


def counters(version: int = 1, head: tuple[int, int] = (0, 0), opens: int = 0) -> bytes:
    numbers = [0] * (16 * 33)
    numbers[0], numbers[1], numbers[2] = version, *head
    numbers[16], numbers[16 * 32] = opens, opens
    return struct.pack("=528Q", *numbers)


def test_counters_are_summed_and_what_is_forged_is_bounded(tmp_path: Path) -> None:
    assert file_counters.read(tmp_path) == {}
    place = tmp_path / "filesystem.counters"
    place.write_bytes(counters(opens=2**64 - 1, head=(7, 5)))
    found = file_counters.read(tmp_path)
    assert found["opens"] == 2**63 - 1 and found["stats"] == 0
    assert (found["index_done"], found["index_total"]) == (5, 5)
    place.write_bytes(counters(opens=3))
    assert file_counters.read(tmp_path)["opens"] == 6
    assert "index_total" not in file_counters.read(tmp_path)
    for wrong in (counters(version=2), counters()[:-1], b""):
        place.write_bytes(wrong)
        assert file_counters.read(tmp_path) == {}
    place.unlink()
    place.symlink_to("/etc/passwd")
    assert file_counters.read(tmp_path) == {}
    place.unlink()
    os.mkfifo(place)
    assert file_counters.read(tmp_path) == {}
