"""Programs for test_net_wires.py; run under the overlay as `python3 peer.py ROLE …`.

Each is an ordinary user of sockets. What they send is checked by what they print: sums of bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PORT = 7000
HEADER = 1 << 16  # where the first ring begins
RING = 1 << 20


def block(number: int, size: int) -> bytes:
    """The same on both ends."""
    return random.Random(number).randbytes(size)


def read_all(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size > 0:
        part = connection.recv(min(size, 1 << 16))
        if not part:
            raise SystemExit(f"{size} bytes are missing")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def listener() -> socket.socket:
    return socket.create_server(
        ("::", PORT), family=socket.AF_INET6, backlog=16, dualstack_ipv6=True
    )


def echo(server: socket.socket) -> None:
    """Echoes to everyone, for ever."""
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
            os._exit(0)
        connection.close()


def talk(address: str, rounds: str) -> None:
    """Sends blocks and compares what comes back; says so."""
    with socket.create_connection((address, PORT)) as connection:
        for number in range(int(rounds)):
            sent = block(number, 1 + number * 7919 % 150_000)
            pid = os.fork()
            if pid == 0:
                connection.sendall(sent)
                os._exit(0)
            got = read_all(connection, len(sent))
            os.waitpid(pid, 0)
            if hashlib.sha256(got).digest() != hashlib.sha256(sent).digest():
                raise SystemExit(f"block {number} differs")
    print("same", flush=True)


def hold(address: str) -> None:
    """Keeps a connection, uses it for each line of input, and says how it ends."""
    with socket.create_connection((address, PORT)) as connection:
        connection.sendall(b"x")
        read_all(connection, 1)
        print("held", flush=True)
        try:
            while True:
                if sys.stdin in select.select([sys.stdin, connection], [], [])[0]:
                    connection.sendall(sys.stdin.readline().encode())
                    print(f"alive {connection.recv(100)!r}", flush=True)
                else:
                    print(f"got {connection.recv(1)!r}", flush=True)
                    break
        except OSError as error:
            print(f"error {error.errno}", flush=True)


def forked_first(address: str) -> None:
    """The child, forked before any wire, is the one that talks."""
    early = socket.socket()  # the instance lives in this process from here on
    early.bind(("0.0.0.0", 0))
    early.listen()
    pid = os.fork()
    if pid == 0:
        talk(address, "20")
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    raise SystemExit(os.waitstatus_to_exitcode(status))


def executed(address: str) -> None:
    """A program of the same application, started while this one's connection stands."""
    with socket.create_connection((address, PORT)) as connection:
        connection.sendall(b"x")
        read_all(connection, 1)
        subprocess.run([sys.executable, __file__, "talk", address, "20"], check=True)
        connection.sendall(b"y")
        read_all(connection, 1)
    print("both", flush=True)


def link_of(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def wire_memory() -> mmap.mmap:
    """That of this process's only wire."""
    rings = [path for path in Path("/proc/self/fd").iterdir() if "cse-wire" in link_of(path)]
    return mmap.mmap(os.open(rings[0], os.O_RDWR), 0)


def ring_bells() -> None:
    """Those of the peer, and our own: all pipes that this process may write to."""
    for path in Path("/proc/self/fd").iterdir():
        if link_of(path).startswith("pipe:") and int(path.name) > 2:
            with contextlib.suppress(OSError):
                os.write(int(path.name), b"!")


def forge_record(memory: mmap.mmap, side: int, what: str) -> None:
    """A packet of an address that is neither end's, or a tail that no record can have."""
    word = slice(384 * side, 384 * side + 4)
    tail = int.from_bytes(memory[word], "little")
    if what == "packet":
        at = HEADER + side * RING + tail % RING
        packet = bytes([0x45, 0, 0, 20, *range(8), 10, 9, 8, 7, 10, 9, 8, 6])
        memory[at : at + 24] = (20).to_bytes(4, "little") + packet
    forged = tail + (24 if what == "packet" else 3)
    memory[word] = (forged % 2**32).to_bytes(4, "little")


def forge(address: str, what: str) -> None:
    """Writes over the memory of its wire as no stack would, for a second."""
    with socket.create_connection((address, PORT)) as connection:
        connection.sendall(b"x")
        read_all(connection, 1)
        memory = wire_memory()
        for _ in range(20):  # our own stack writes there as well: an acknowledgement may win
            for side in range(2):
                forge_record(memory, side, what)
            ring_bells()
            time.sleep(0.05)
    print("forged", flush=True)


def scribble(address: str, seed: str) -> None:
    """Writes garbage over the memory of its wire while it uses it."""
    with socket.create_connection((address, PORT)) as connection:
        connection.sendall(b"x")
        read_all(connection, 1)
        memory = wire_memory()
        dice = random.Random(int(seed))
        print("scribbles", flush=True)
        for _ in range(2000):
            where = dice.choice((dice.randrange(0, 1024, 4), dice.randrange(HEADER, len(memory))))
            piece = dice.randbytes(dice.choice((4, 64)))
            piece = piece[: len(memory) - where]
            memory[where : where + len(piece)] = piece
            ring_bells()
            try:
                connection.send(b"z" * 1000, socket.MSG_DONTWAIT)
            except OSError:
                time.sleep(0.001)
    print("done", flush=True)


def segment(address: str) -> None:
    """The largest segment that both ends agreed upon."""
    with socket.create_connection((address, PORT)) as connection:
        connection.sendall(b"x")
        read_all(connection, 1)
        print(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))


ROLES: dict[str, Callable[..., None]] = {
    "talk": talk,
    "hold": hold,
    "forked-first": forked_first,
    "executed": executed,
    "scribble": scribble,
    "forge": forge,
    "segment": segment,
}

if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "echo":
        echo(listener())
    ROLES[role](*rest)
