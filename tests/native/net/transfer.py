"""Bytes that must arrive as they were: a server that answers with their digest, and a client.

    transfer.py serve PORT
    transfer.py send ADDRESS PORT BYTES WRITE_SIZE    prints "digest digest-of-what-came-back"

Run on both sides of the device by test_net_device.py; each connection sends its bytes, half-closes,
and gets the same number of other bytes back.
"""

from __future__ import annotations

import hashlib
import socket
import sys
import threading


def pattern(count: int, seed: bytes) -> bytes:
    """Bytes no part of which is like another."""
    return hashlib.shake_256(seed).digest(count)


def take_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def answer(connection: socket.socket) -> None:
    with connection:
        got = take_all(connection)
        connection.sendall(hashlib.sha256(got).hexdigest().encode())
        connection.sendall(pattern(len(got), b"back"))


def serve(port: int) -> None:
    both = {"family": socket.AF_INET6, "dualstack_ipv6": True}
    with socket.create_server(("::", port), backlog=64, **both) as listener:  # type: ignore[arg-type]
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def send(address: str, port: int, count: int, size: int) -> None:
    data = pattern(count, b"there")
    with socket.create_connection((address, port), timeout=60) as connection:
        for at in range(0, count, size):
            connection.sendall(data[at : at + size])
        connection.shutdown(socket.SHUT_WR)
        got = take_all(connection)
    assert got[:64].decode() == hashlib.sha256(data).hexdigest(), "changed on the way there"
    assert got[64:] == pattern(count, b"back"), "changed on the way back"
    print("intact")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        send(sys.argv[2], *map(int, sys.argv[3:]))
