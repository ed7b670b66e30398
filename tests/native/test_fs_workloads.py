"""Whole workloads on mounts, as people use them: each ends as it does on an ordinary directory."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.native.fs_harness import MOUNT, Overlay, bare, make_tree, pack

pytestmark = pytest.mark.native
LibDir = Callable[[str], Path]
Make = Callable[..., Overlay]


@pytest.fixture
def mount(tmp_path: Path, libdir: LibDir) -> Make:
    """`mount(source=…, …)` is an application with that source at MOUNT."""

    def make(**source: Any) -> Overlay:
        library = libdir("filesystem") / "libcse-fs.so"
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        return Overlay(run, library, [{"path": MOUNT, **source}])

    return make


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine; `make setup` as root installs what it can")


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.mark.parametrize("kind", ["tar.gz", "squashfs.zst"])
def test_gcc_builds_a_project_of_an_archive_under_a_cow(
    kind: str, mount: Make, tmp_path: Path
) -> None:
    need("gcc", "make")
    project = tmp_path / "project"
    (project / "include").mkdir(parents=True)
    (project / "src").mkdir()
    (project / "include/sum.h").write_text("int sum(int, int);\n")
    (project / "src/sum.c").write_text(
        '#include "sum.h"\nint sum(int a, int b) { return a + b; }\n'
    )
    (project / "src/main.c").write_text(
        '#include <stdio.h>\n#include "../include/sum.h"\n'
        'int main(void) { printf("%d %s\\n", sum(40, 2), __FILE__); return 0; }\n'
    )
    (project / "Makefile").write_text(
        "CFLAGS = -Iinclude -MMD -O1\nobjects = src/sum.o src/main.o\n"
        "program: $(objects)\n\t$(CC) -o $@ $^\nclean:\n\trm -f program $(objects)\n"
        "-include src/*.d\n"
    )
    archive = pack(project, tmp_path / f"t.{kind}")
    application = mount(source="cow", lower={"source": "archive", "from": archive})
    good(application.run(["make", "-j2", "-C", MOUNT]))
    assert good(application.run(["sh", "-c", f"{MOUNT}/program"])) == "42 src/main.c\n"
    assert "up to date" in good(application.run(["make", "-C", MOUNT]))
    edit = (
        f"cd {MOUNT} && sed -i 's/a + b/a - b/' src/sum.c && make -s && ./program && make -s clean"
    )
    assert good(application.run(["sh", "-c", edit])) == "38 src/main.c\n"
    assert "program" not in good(application.run(["ls", MOUNT]))


def test_git_clones_commits_and_collects_garbage_on_a_cow(mount: Make, tmp_path: Path) -> None:
    need("git")
    origin, lower = tmp_path / "origin", tmp_path / "lower"
    lower.mkdir()
    setup = """git init -q -b main . && git config user.name T && git config user.email t@e.org
    for i in $(seq 30); do mkdir -p d$((i % 5)); seq $i > d$((i % 5))/f$i; done
    git add . && git commit -q -m first"""
    origin.mkdir()
    good(bare(["bash", "-ec", setup], cwd=str(origin)))
    application = mount(source="cow", **{"from": lower})
    script = f"""cd {MOUNT} && git clone -q {origin} work && cd work
    git config user.name T && git config user.email t@e.org
    for i in 1 2 3; do echo $i >> d1/f1; git commit -qam "change $i"; done
    git checkout -q -b side HEAD~2 && git mv d2 moved && git commit -qm moved
    git merge -q -m merged main && git gc -q --prune=now && git fsck && git status --short
    git log --format=%s | sort | head -3; git ls-files | wc -l"""
    found = good(application.run(["bash", "-ec", script]))
    assert found == "change 1\nchange 2\nchange 3\n30\n"
    assert list(lower.iterdir()) == []


def test_sqlite_in_wal_mode_is_whole_after_sigkill(mount: Make, tmp_path: Path) -> None:
    need("sqlite3")
    lower = tmp_path / "lower"
    lower.mkdir()
    sql = "pragma journal_mode=wal; create table t(n integer primary key, x);"
    good(bare(["sqlite3", str(lower / "db"), sql]))
    application = mount(source="cow", **{"from": lower})
    text = f"""
import sqlite3
db = sqlite3.connect("{MOUNT}/db", isolation_level=None)
db.execute("pragma synchronous=full")
number = 0
while True:
    number += 1
    db.execute("insert into t values (?, randomblob(1000))", (number,))
    print(number, flush=True)
"""
    for _ in range(3):
        application.run(["sqlite3", f"{MOUNT}/db", "delete from t"])
        writer = subprocess.Popen(
            [sys.executable, "-c", text], env=application.environment, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(40)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        check = "pragma integrity_check; select count(*), max(n) from t"
        answer = good(application.run(["sqlite3", f"{MOUNT}/db", check])).split()
        assert answer[0] == "ok"
        count, largest = map(int, answer[1].split("|"))
        assert count == largest >= int(lines[-1])


def test_pip_installs_into_a_cow(mount: Make, tmp_path: Path) -> None:
    lower, package = tmp_path / "lower", tmp_path / "package"
    (package / "answers").mkdir(parents=True)
    (package / "answers/__init__.py").write_text("VALUE = 42\n")
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "answers"\nversion = "1"\n'
    )
    (package / "backend.py").write_text(
        "import zipfile\n"
        "def build_wheel(directory, settings=None, metadata=None):\n"
        "    name = 'answers-1-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(f'{directory}/{name}', 'w') as wheel:\n"
        "        wheel.write('answers/__init__.py')\n"
        "        wheel.writestr('answers-1.dist-info/METADATA', "
        "'Metadata-Version: 2.1\\nName: answers\\nVersion: 1\\n')\n"
        "        wheel.writestr('answers-1.dist-info/WHEEL', "
        "'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr('answers-1.dist-info/RECORD', '')\n"
        "    return name\n"
    )
    venv.create(lower, with_pip=True)
    before = sorted(str(path) for path in lower.rglob("*"))
    application = mount(source="cow", **{"from": lower})
    python = ["sh", "-c", f'exec {MOUNT}/bin/python "$@"', "sh"]
    install = [*python, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation"]
    good(application.run([*install, str(package)]))
    text = "import answers, sys; print(answers.VALUE, answers.__file__.startswith(sys.prefix))"
    assert good(application.run([*python, "-c", text])) == "42 True\n"
    good(application.run([*python, "-m", "pip", "uninstall", "-q", "-y", "answers"]))
    assert application.run([*python, "-c", "import answers"]).returncode == 1
    assert sorted(str(path) for path in lower.rglob("*")) == before


def test_a_virtual_environment_in_a_squashfs(mount: Make, tmp_path: Path) -> None:
    tree = tmp_path / "venv"
    venv.create(tree, symlinks=True)
    (site,) = tree.glob("lib/python*/site-packages")
    (site / "answers.py").write_text("VALUE = 42\n")
    archive = pack(tree, tmp_path / "t.squashfs.zst")
    application = mount(source="squashfs", links="any", **{"from": archive})
    text = "import answers, sys; print(answers.VALUE, sys.prefix, answers.__file__)"
    place = site.relative_to(tree)
    found = good(application.run(["sh", "-c", f"{MOUNT}/bin/python -c '{text}'"]))
    assert found == f"42 {MOUNT} {MOUNT}/{place}/answers.py\n"


def test_node_with_its_modules_in_a_zip(mount: Make, tmp_path: Path) -> None:
    need("node")
    tree = tmp_path / "app"
    (tree / "node_modules/answers/lib").mkdir(parents=True)
    (tree / "node_modules/answers/package.json").write_text('{"main": "lib/index.js"}')
    (tree / "node_modules/answers/lib/index.js").write_text("module.exports = 42;\n")
    (tree / "main.js").write_text(
        "const fs = require('fs');\n"
        "console.log(require('answers'), __filename, fs.readdirSync(__dirname).join());\n"
        "import('fs/promises').then(async (p) => console.log((await p.stat(__filename)).size));\n"
    )
    size = (tree / "main.js").stat().st_size
    application = mount(source="archive", **{"from": pack(tree, tmp_path / "t.zip")})
    found = good(application.run(["node", f"{MOUNT}/main.js"]))
    assert found == f"42 {MOUNT}/main.js main.js,node_modules\n{size}\n"


@pytest.mark.parametrize("source", ["cow", "encrypted"])
def test_rsync_and_tar_bring_a_tree_in_and_out(source: str, mount: Make, tmp_path: Path) -> None:
    need("rsync", "tar")
    tree = make_tree(tmp_path / "tree")
    (tree / "hard2").unlink()
    lower = tmp_path / "lower"
    lower.mkdir()
    (tmp_path / "key").write_text("5a" * 32)
    settings: dict[str, Any] = (
        {"from": lower} if source == "cow" else {"store": lower, "key_file": tmp_path / "key"}
    )
    application = mount(source=source, **settings)
    script = f"""rsync -a {tree}/ {MOUNT}/one && rsync -a {MOUNT}/one/ {tmp_path}/out
    tar -C {tree} -cf - . | (mkdir {MOUNT}/two && tar -C {MOUNT}/two -xf -)
    rsync -a --checksum --itemize-changes {MOUNT}/one/ {MOUNT}/two
    rsync -a --delete {MOUNT}/one/sub/ {MOUNT}/two
    diff -r --no-dereference {MOUNT}/one/sub {MOUNT}/two"""
    found = application.run(["bash", "-ec", script])
    assert (good(found), found.stderr) == ("", "")
    assert bare(["diff", "-r", "--no-dereference", str(tree), f"{tmp_path}/out"]).stdout == ""


def test_vim_edits_a_file_of_a_cow(mount: Make, tmp_path: Path) -> None:
    need("vim")
    tree = make_tree(tmp_path / "tree")
    application = mount(source="cow", **{"from": tree})
    edit = ["vim", "-u", "NONE", "-es", "+%s/alpha/edited/", "+set backup", "+wq"]
    application.run([*edit, f"{MOUNT}/a.txt"])
    assert good(application.run(["cat", f"{MOUNT}/a.txt", f"{MOUNT}/a.txt~"])) == "edited\nalpha\n"
    assert (tree / "a.txt").read_text() == "alpha\n"


def _random_tree(top: Path, seed: int) -> Path:
    """Directories, files, links and hard links with whatever names, modes and times."""
    chance = random.Random(seed)
    letters = "abc .-_'\"$\\*?[]äß€\t#~" + "x" * 20
    folders = [top]
    top.mkdir()

    def fresh(folder: Path) -> Path:
        while True:
            name = "".join(chance.choices(letters, k=chance.choice([1, 3, 8, 40, 120])))
            if name not in (".", "..") and not os.path.lexists(folder / name):
                return folder / name

    files: list[Path] = []
    for number in range(600):
        path = fresh(chance.choice(folders))
        kind = chance.random()
        if kind < 0.15 and len(path.parts) < 20 and len(str(path)) < 1200:
            path.mkdir()
            folders.append(path)
        elif kind < 0.22:
            target = chance.choice(["nowhere", "..", str(number), "../" * 3 + "x", "/etc/hostname"])
            path.symlink_to(target)
        elif kind < 0.27 and files:
            os.link(chance.choice(files), path)
        else:
            size = chance.choice([0, 1, 511, 512, 4096, chance.randint(0, 200_000)])
            path.write_bytes(chance.randbytes(size))
            files.append(path)
    for path in [*files, *folders[1:]]:
        path.chmod(chance.choice([0o644, 0o600, 0o755, 0o4755, 0o1777, 0o440]) | 0o500)
    for path in [*sorted(top.rglob("*"), reverse=True), top]:
        os.utime(path, (chance.randint(1, 2**31),) * 2, follow_symlinks=False)
    return top


WHOLE = {
    "find": "find . -mindepth 1 ! -type d -printf '%p %y %s %m %n %T@ %l\\0' | sort -z",
    "directories": "find . -mindepth 1 -type d -printf '%p %m %T@\\0' | sort -z",
    "du": "find . ! -type d -print0 | sort -z | du -l --apparent-size --files0-from=- -b0",
    "ls": "find . -mindepth 1 -print0 | sort -z | xargs -0 ls -dUl --time-style=full-iso"
    " | grep -v ^d",
    "contents": "find . -type f -print0 | sort -z | xargs -0 sha256sum -z",
}


@pytest.mark.parametrize("kind", ["tar.zst", "cpio", "squashfs"])
def test_a_large_random_tree_is_the_unpacked_one_bit_by_bit(
    kind: str, mount: Make, tmp_path: Path
) -> None:
    tree = _random_tree(tmp_path / "tree", seed=len(kind))
    archive = pack(tree, tmp_path / f"t.{kind}")
    application = mount(source="archive", links="any", **{"from": archive})
    for name, command in WHOLE.items():
        expected = bare(["bash", "-c", command], cwd=str(tree))
        found = application.run(["bash", "-c", f"cd {MOUNT} && {command}"])
        assert len(expected.stdout) > 1000
        differing = set(found.stdout.split("\0")) ^ set(expected.stdout.split("\0"))
        assert not differing, (name, sorted(differing)[:4])
        assert (found.stdout, found.stderr) == (expected.stdout, expected.stderr), name


AGREE = {
    "find": "find . -mindepth 1 -printf '%p %y %s %m %n %T@ %l\\n' | grep -v ' d ' | sort",
    "du": "du -ab . | sort -k2 | grep -v -P '\\t\\./?(sub|many|sub/deep)?$'",
    "ls": "ls -lR --time-style=full-iso many sub/deep | grep -v ^total",
}


@pytest.mark.parametrize("kind", ["tar.gz", "cpio", "squashfs"])
def test_find_du_and_ls_agree_with_the_unpacked_tree(
    kind: str, mount: Make, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "tree")
    application = mount(source="archive", **{"from": pack(tree, tmp_path / f"t.{kind}")})
    for name, command in AGREE.items():
        expected = bare(["bash", "-c", command], cwd=str(tree))
        found = application.run(["bash", "-c", f"cd {MOUNT} && {command}"])
        assert (found.stdout, found.stderr) == (expected.stdout, expected.stderr), name
