"""Claim 4: an instance reaches the kernel by ordinary system calls only."""

from __future__ import annotations

import re

from tests.acceptance.world import World, until

_IOCTL = re.compile(r"ioctl\(\d+(?:<[^>]*>)?, (\w+)")


def test_strace_shows_documented_calls_and_no_kernel_socket(world: World) -> None:
    world.run("web", ["python3", "-m", "http.server", "80"], elements={"network-lwip": {}})
    url = f"http://{world.address('web')}/"
    until(lambda: world.exec("web", "curl", "-sS", "-o", "/dev/null", url).returncode == 0)
    world.run("caller", ["sleep", "300"], elements={"network-lwip": {}})

    traced = world.exec(
        "caller", "strace", "-f", "-qq", "-o", "/tmp/trace", "curl", "-sS", "-o", "/dev/null", url
    )
    assert traced.returncode == 0, traced.stderr
    trace = world.exec("caller", "cat", "/tmp/trace").stdout

    calls = {match[1] for match in re.finditer(r"^\d+\s+(\w+)\(", trace, re.M)}
    assert {"socketpair", "memfd_create", "write"} <= calls or {"socketpair", "writev"} <= calls
    assert not [call for call in calls if call.startswith("syscall_")], "unknown system call"
    # The program asked for TCP; the kernel was never asked for an IP socket.
    assert "connect(" in trace  # to the broker, over AF_UNIX
    assert not re.search(r"socket\(AF_INET6?,", trace)
    assert not {"init_module", "finit_module", "bpf", "iopl", "ioperm"} & calls
    of_program = {"TCGETS", "TIOCGWINSZ", "FIONBIO", "FIONREAD"}
    assert (
        set(_IOCTL.findall(trace)) <= {"TUNGETIFF", "TUNSETOFFLOAD", "TUNSETVNETHDRSZ"} | of_program
    )
