"""A path between hosts of the laboratory that loses and reorders packets, by a seed.

Used by test_net_loss.py. The hosts' taps are taken off the bridge, and a thread carries frames
between them through packet sockets, with the checksum and segmentation marks that the kernel keeps
beside them.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import threading
import time

from tests.native.net.lab import Host, Lab, ip

_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_OUTGOING = 263, 15, 4
_ARP = 0x0806


class LossyPath:
    """Between all hosts made with it; `close` ends the thread."""

    def __init__(self, loss: float, reorder: float, seed: int) -> None:
        self.loss = loss
        self.reorder = reorder
        self.lost = self.reordered = self.carried = 0
        self._random = random.Random(seed)
        self._sockets: list[socket.socket] = []
        self._late: list[tuple[float, socket.socket, bytes]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self, device: str) -> None:
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        end.bind((device, 3))  # ETH_P_ALL
        end.setblocking(False)
        self._sockets.append(end)

    def _carry(self, source: socket.socket) -> None:
        for _ in range(64):
            try:
                frame, sender = source.recvfrom(70000)
            except OSError:
                return
            if sender[2] == _PACKET_OUTGOING:
                continue
            for target in self._sockets:
                if target is not source:
                    self._pass_on(target, frame, sender[1])

    def _pass_on(self, target: socket.socket, frame: bytes, protocol: int) -> None:
        self.carried += 1
        if protocol != _ARP:
            if self._random.random() < self.loss:
                self.lost += 1
                return
            if self._random.random() < self.reorder:
                self.reordered += 1
                self._late.append((time.monotonic() + 0.002, target, frame))
                return
        self._send(target, frame)

    @staticmethod
    def _send(target: socket.socket, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # the tap is gone, or full: a loss like any other
            target.send(frame)

    def _run(self) -> None:
        while not self._closing:
            ready, _, _ = select.select(self._sockets, [], [], 0.001 if self._late else 0.05)
            for source in ready:
                self._carry(source)
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                _, target, frame = self._late.pop(0)
                self._send(target, frame)

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        for end in self._sockets:
            end.close()


class LossyHost(Host):
    """A host on such a path instead of the bridge."""

    def __init__(self, lab: Lab, path: LossyPath, role: str) -> None:
        self.path = path
        number = lab.take_number()
        super().__init__(lab, f"{role}{number}", number)

    def serve(self) -> None:
        """Without a binding: no wire takes a short cut."""
        self.lab.broker.serve(self.name, self.run, self._make_tap, self.lab.find)

    def _make_tap(self, again: bool) -> int:
        fd = super()._make_tap(again)
        ip("link", "set", self.tap, "nomaster")
        self.path.join(self.tap)
        return fd

    def set(self, **settings: object) -> None:
        """Settings of the element, before its first program starts."""
        with (self.run / "network.conf").open("a") as conf:
            for key, value in settings.items():
                conf.write(f"{key.replace('__', '.')}={value}\n")
