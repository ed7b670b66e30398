"""Debian's runsc as a peer: another stack in user space, in two sandboxes joined by a veth pair.

Used by race.py. The platform is ptrace: it runs everywhere, and KVM needs a processor that the
machine may not lend. A runsc that is not there or does not start is no error of the measurement:
its figures say why they are missing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.bench.harness import CannotMeasure, output
from tests.bench.places import SERVER, Kernel

_START_S = 30
# Debian's runsc takes a network namespace for the host's own where a certain file is in this
# directory, and newer kernels show that file in every namespace.
_HIDE = 'mount -t tmpfs none /proc/sys/net/core && exec "$@"'


class Gvisor:
    """Both sandboxes see the host's files, read-only, as applications of ours do."""

    name = "gVisor (runsc, ptrace)"
    pace = 0.03
    address = SERVER

    def __init__(self) -> None:
        self._veth = Kernel()
        self._folder = Path(tempfile.mkdtemp(prefix="cse-bench-"))
        self._started: list[str] = []

    def __enter__(self) -> Gvisor:
        self._veth.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for sandbox in self._started:
            for words in (("kill", sandbox, "KILL"), ("delete", "--force", sandbox)):
                subprocess.run(self._words(sandbox, *words), capture_output=True, check=False)
        self._veth.__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _words(self, sandbox: str, *words: str) -> list[str]:
        inside = ["ip", "netns", "exec", sandbox, "unshare", "-m", "--propagation", "private"]
        options = ["--platform=ptrace", "--ignore-cgroups", "--network=sandbox"]
        runsc = ["runsc", "--root", str(self._folder / "state"), *options]
        return [*inside, "sh", "-c", _HIDE, "sh", *runsc, *words]

    def _bundle(self, sandbox: str, command: list[str]) -> Path:
        own = [{"type": kind} for kind in ("pid", "ipc", "mount")]
        network = {"type": "network", "path": f"/run/netns/{sandbox}"}
        mounts = {"/proc": "proc", "/tmp": "tmpfs", "/var/lib/nginx": "tmpfs", "/dev": "tmpfs"}
        config = {
            "ociVersion": "1.0.0",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": command,
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000}],
            },
            "root": {"path": "/", "readonly": True},
            "mounts": [{"destination": path, "type": kind} for path, kind in mounts.items()],
            "linux": {"namespaces": [*own, network]},
        }
        bundle = self._folder / sandbox
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(config))
        return bundle

    def _start(self, sandbox: str, command: list[str]) -> None:
        bundle = self._bundle(sandbox, command)
        words = self._words(sandbox, "run", "--bundle", str(bundle), "--detach", sandbox)
        self._started.append(sandbox)
        log = bundle / "output"
        with log.open("wb") as file:  # the sandbox keeps it open: a pipe would never end
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=_START_S,
                check=False,
            )
        if done.returncode != 0:
            raise CannotMeasure(f"runsc: {log.read_text(errors='replace').strip()[-300:]}")

    def serve(self, *command: str) -> None:
        if shutil.which("runsc") is None:
            raise CannotMeasure("no runsc on this machine (Debian's package runsc)")
        self._start(self._veth.server, list(command))
        self._start(self._veth.client, ["sleep", "infinity"])

    def call(self, *command: str) -> str:
        return output(self._words(self._veth.client, "exec", self._veth.client, *command))
