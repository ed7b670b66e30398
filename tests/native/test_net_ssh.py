"""sshd on a private stack, with its privilege separation and its filter of system calls; ssh and
sftp from another private stack and from the machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, need, retry

pytestmark = [pytest.mark.native, pytest.mark.root]

PORT = "2222"
MEGABYTES = 3_000_000


@pytest.fixture(autouse=True)
def not_sanitized(variant: str) -> None:
    if variant == "asan":
        pytest.skip("sshd's filter forbids calls that a sanitizer's runtime makes")


@pytest.fixture(params=["relay", "direct"])
def server(lab: Lab, request: pytest.FixtureRequest) -> Host:
    """sshd that lets root in by a key, as an unprivileged port's server."""
    need("sshd")
    host = lab.host()
    for name in ("host_key", "user_key"):
        words = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host.run / name))
        subprocess.run(words, check=True)
    shutil.copy(host.run / "user_key.pub", host.run / "authorized_keys")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it is confined to
    (host.run / "sshd_config").write_text(
        f"Port {PORT}\nListenAddress 0.0.0.0\nHostKey {host.run}/host_key\n"
        f"AuthorizedKeysFile {host.run}/authorized_keys\nPidFile {host.run}/pid\n"
        "StrictModes no\nPasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
    )
    mode = ("env", f"CSE_NETWORK_MODE={request.param}")
    host.start(*mode, need("sshd"), "-D", "-e", "-f", str(host.run / "sshd_config"))

    def greets() -> bool:
        with socket.create_connection((host.address, int(PORT)), timeout=5) as client:
            return client.recv(8) == b"SSH-2.0-"

    assert retry(greets), host.log()
    return host


def words(server: Host, program: str, port: str, key: str = "user_key") -> list[str]:
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes")
    given = [word for option in (*options, "LogLevel=ERROR") for word in ("-o", option)]
    return [need(program), "-F", "none", *given, "-i", str(server.run / key), port, PORT]


def test_commands_from_a_private_stack_and_from_the_machine(lab: Lab, server: Host) -> None:
    ssh = [*words(server, "ssh", "-p"), f"root@{server.address}"]
    outside = subprocess.run([*ssh, "echo", "hello"], capture_output=True, text=True, timeout=60)
    assert (outside.returncode, outside.stdout) == (0, "hello\n"), (outside.stderr, server.log())
    client = lab.host()
    assert client.check(*ssh, "cat; exit 0", given="through and back\n") == "through and back\n"
    assert client.check(*ssh, "wc -c", given="x" * MEGABYTES).strip() == str(MEGABYTES)
    zeros = client.check(*ssh, f"head -c {MEGABYTES} /dev/zero")
    assert zeros == "\0" * MEGABYTES
    failed = subprocess.run(client.command(*ssh, "exit 7"), capture_output=True, timeout=60)
    assert failed.returncode == 7


def test_files_by_sftp(lab: Lab, server: Host) -> None:
    client = lab.host()
    there, back = server.run / "there", server.run / "back"
    program = Path(need("ssh"))
    sftp = [*words(server, "sftp", "-P"), "-b", "-", f"root@{server.address}"]
    client.check(*sftp, given=f"put {program} {there}\nget {there} {back}\n", timeout=60)
    assert back.read_bytes() == program.read_bytes()


def test_a_stranger_without_the_key_stays_outside(lab: Lab, server: Host) -> None:
    """Refused by the confined process; the next one is served."""
    stranger = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(server.run / "stranger"))
    subprocess.run(stranger, check=True)
    client = lab.host()
    for _ in range(3):
        ssh = [*words(server, "ssh", "-p", key="stranger"), f"root@{server.address}", "true"]
        refused = subprocess.run(client.command(*ssh), capture_output=True, text=True, timeout=60)
        assert refused.returncode == 255 and "Permission denied" in refused.stderr
    client.check(*words(server, "ssh", "-p"), f"root@{server.address}", "true")
