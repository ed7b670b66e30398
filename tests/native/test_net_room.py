"""A program may have as many connections as it may open files, although each takes two."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.native.net.lab import Host, Lab, retry
from tests.native.test_net_programs import port_open

pytestmark = [pytest.mark.native, pytest.mark.root]

LIMIT, CONNECTIONS = 256, 200

SERVER = """
import selectors, socket
ready = selectors.DefaultSelector()
server = socket.create_server(("0.0.0.0", 7000), backlog=512)
ready.register(server, selectors.EVENT_READ)
while True:
    for key, _ in ready.select():
        if key.fileobj is server:
            one, _ = server.accept()
            ready.register(one, selectors.EVENT_READ)
            continue
        one = key.fileobj
        if got := one.recv(65536):
            with open("/dev/null"):
                one.sendall(got)
        else:
            ready.unregister(one)
            one.close()
"""

CLIENT = """
import socket, sys
address, count = sys.argv[1], int(sys.argv[2])

def connect():
    one = socket.create_connection((address, 7000), timeout=30)
    exchange(one, b"first")
    return one

def exchange(one, message):
    one.sendall(message)
    got = b""
    while len(got) < len(message):
        got += one.recv(65536)
    assert got == message

all = [connect() for _ in range(count)]
for turn in range(2):
    for number, one in enumerate(all):
        exchange(one, b"%d of %d" % (number, turn))
for one in all[:4] + all[-4:]:
    exchange(one, bytes(range(256)) * 200)
for one in all[::2]:
    one.close()
all = all[1::2] + [connect() for _ in range(count // 2)]
for number, one in enumerate(all):
    exchange(one, b"again %d" % number)
print(len(all))
"""


def names(host: Host) -> list[str]:
    """What the application's processes call themselves."""
    return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in host.pids()]


@pytest.mark.parametrize("mode", ["direct", "relay"])
def test_as_many_connections_as_files(lab: Lab, mode: str) -> None:
    """What is idle goes to the keeper, which ends when nobody needs it any more."""
    limited = ("env", f"CSE_NETWORK_MODE={mode}", "prlimit", f"--nofile={LIMIT}:{LIMIT}")
    host, client = lab.host(), lab.host()
    server = host.start(*limited, sys.executable, "-c", SERVER)
    port_open(host, 7000)
    words = (*limited, sys.executable, "-c", CLIENT, host.address, str(CONNECTIONS))
    assert client.check(*words, timeout=60) == f"{CONNECTIONS}\n", host.log()
    assert "cse-keeper" in names(host)
    assert retry(lambda: "cse-keeper" not in names(host)), "nobody has a connection any more"
    assert retry(lambda: not client.pids())
    assert host.stop(server) == -15, host.log()
