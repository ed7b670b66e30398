"""Every function of this machine's libc that takes a path is served, or the manual says why not.

The functions are those that libc exports and its headers declare with a parameter that is named
like a path (or a DIR), and other names of the same code (`__open`). What a new libc brings makes
the first test fail until it is taken over, described in docs/filesystem.md, or listed below as no
path.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, build

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
DOCS = Path(__file__).parents[2] / "docs/filesystem.md"
SOURCE = Path(__file__).parent / "fs/unusual.c"

_PATH_WORDS = "file|path|dir|name|from|to|old|new|special|template|words|pattern|command"
_PATH = re.compile(rf"char \*(?:__restrict )?_*\w*(?:{_PATH_WORDS})\w* ?(?:,|$|\[)|\bDIR \*")
_DECLARED = re.compile(r"extern\s[^;{}()]*?(\w+)\s*\(((?:[^()]|\([^()]*\))*)\)[^;{]*;")
_ATTRIBUTE = re.compile(r"__attribute__\s*\(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\)")

NO_PATHS = {
    "a text": "__xpg_basename basename dirname fnmatch glob_pattern_p re_compile_pattern regcomp "
    "__assert __assert_fail __assert_perror_fail error_at_line argp_help getopt getopt_long "
    "getopt_long_only",
    "a variable, symbol, host, user, database or attribute": "getenv secure_getenv "
    "__secure_getenv setenv unsetenv envz_add envz_entry envz_get envz_remove dlsym dlvsym "
    "gethostname sethostname getdomainname "
    "setdomainname getlogin_r setlogin logwtmp if_nametoindex pthread_setname_np "
    "__nss_configure_lookup fgetxattr fremovexattr fsopen",
    "a descriptor, or a terminal's name given back": "dirfd forkpty openpty",
    "a name on another host": "rexec rexec_af",
}


def _exports(library: Path) -> dict[str, str]:
    """Functions with their addresses, without those that are libc's own affair."""
    listing = subprocess.check_output(["nm", "-D", "--defined-only", library], text=True)
    functions = {}
    for line in listing.splitlines():
        address, kind, name = line.split()
        if kind in "TWi" and "GLIBC_PRIVATE" not in name:
            functions[name.partition("@")[0]] = address
    return functions


def _libc() -> Path:
    listing = subprocess.check_output(["ldd", shutil.which("cat") or "/bin/cat"], text=True)
    found = re.search(r"=> (\S*/libc\.so\.6) ", listing)
    if found is None:
        pytest.skip("this machine's programs do not use glibc")
    return Path(found[1])


def _headers() -> list[str]:
    if shutil.which("dpkg") is None or shutil.which("gcc") is None:
        pytest.skip("needs gcc, and dpkg to tell which headers are libc's")
    listing = subprocess.run(["dpkg", "-L", "libc6-dev"], capture_output=True, text=True).stdout
    found = re.findall(r"^/usr/include/(?:\w+-linux-gnu/)?(\S+\.h)$", listing, re.MULTILINE)
    return [name for name in found if not re.match(r"bits/|gnu/|rpc|asm|linux/", name)]


def _declared() -> dict[str, str]:
    """Functions of libc's headers with their parameters."""
    lines = [f"#if __has_include(<{name}>)\n#include <{name}>\n#endif\n" for name in _headers()]
    source = "#define _GNU_SOURCE\n" + "".join(lines)
    command = ["gcc", "-E", "-P", "-x", "c", "-"]
    # Its verdict is left aside: a few headers are not meant for each other.
    text = subprocess.run(command, input=source, capture_output=True, text=True).stdout
    plain = _ATTRIBUTE.sub("", text)
    return {name: " ".join(given.split()) for name, given in _DECLARED.findall(plain)}


def _described() -> set[str]:
    section = DOCS.read_text().partition("\n## Left to libc\n")[2].partition("\n## ")[0]
    return set(re.findall(r"`(\w+)`", section))


def test_every_path_taking_function_of_libc_is_served_or_described(libdir: LibDir) -> None:
    libc = _exports(_libc())
    served = set(_exports(libdir("filesystem") / "libcse-fs.so"))
    taking = {n for n, given in _declared().items() if n in libc and _PATH.search(given)}
    assert len(taking) > 150, "the headers were not understood"
    addresses = {libc[name] for name in taking}
    taking |= {name for name, address in libc.items() if address in addresses}
    left = taking - served - {name for names in NO_PATHS.values() for name in names.split()}
    assert sorted(left - _described()) == []


def test_what_is_described_as_left_alone_is_not_served(libdir: LibDir) -> None:
    described = _described()
    assert described
    assert sorted(described & set(_exports(libdir("filesystem") / "libcse-fs.so"))) == []


def test_calls_that_few_programs_make(libdir: LibDir, tmp_path: Path) -> None:
    program = build(SOURCE, tmp_path / "unusual")
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "text").write_text("text\n")
    shutil.copy(shutil.which("echo") or "/bin/echo", lower / "program")
    (tmp_path / "library.c").write_text("int answer(void) { return 42; }\n")
    library, source = str(lower / "library.so"), str(tmp_path / "library.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    if shutil.which("gencat") is not None:
        (tmp_path / "messages").write_text("$set 1\n1 hello\n")
        subprocess.run(["gencat", lower / "messages.cat", tmp_path / "messages"], check=True)
    plain = shutil.copytree(lower, tmp_path / "plain")
    mount = {"path": MOUNT, "source": "cow", "from": lower}
    overlay = Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])
    expected, found = bare([str(program), str(plain)]), overlay.run([str(program), MOUNT])
    assert expected.returncode == 0
    assert (found.stdout, found.stderr) == (expected.stdout, expected.stderr)
    assert not (lower / "fstab").exists()


def test_what_the_kernel_would_keep_is_refused_in_a_mounted_tree(
    libdir: LibDir, tmp_path: Path
) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "file").touch()
    mount = {"path": MOUNT, "source": "cow", "from": lower}
    overlay = Overlay(tmp_path / "run", libdir("filesystem") / "libcse-fs.so", [mount])
    script = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
path = b"{MOUNT}/file"
for call, arguments in {{
    "acct": [path], "swapon": [path, 0], "swapoff": [path], "umount": [path], "umount2": [path, 0],
    "open_tree": [-100, path, 0], "move_mount": [-100, path, -100, b"/mnt", 0],
    "fspick": [-100, path, 0], "mount_setattr": [-100, path, 0, None, 0],
    "mount": [path, b"/mnt", None, 4096, None], "quotactl": [0, path, 0, None],
}}.items():
    ctypes.set_errno(0)
    result = getattr(libc, call)(*arguments)
    print(call, result, errno.errorcode.get(ctypes.get_errno()))
"""
    found = overlay.run(["python3", "-c", script])
    assert found.stderr == ""
    lines = found.stdout.splitlines()
    assert len(lines) == 11
    assert [line for line in lines if not line.endswith(" -1 EPERM")] == []
