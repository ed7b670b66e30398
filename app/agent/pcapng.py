"""Blocks of a pcapng file (draft-ietf-opsawg-pcapng): interfaces, packets, statistics.

Packets bear the "cooked" header of Linux captures (SLL), which says whether they came or went:
libpcap does not read files of several interfaces whose packets begin with the IP header.

Pure: bytes in, bytes out. Called by `capturing`.
"""

from __future__ import annotations

import struct
import time

LINKS = 3
_NAMES = ("tap", "wire", "loopback")
LINKTYPE = 113
"""LINKTYPE_LINUX_SLL, and libpcap's DLT_LINUX_SLL."""
COOKED = 16
"""Bytes of its header."""
_TO_US, _FROM_US = 0, 4
_HARDWARE = (1, 65534, 772)
"""ARPHRD_ETHER, ARPHRD_NONE, ARPHRD_LOOPBACK."""
_IPV4, _IPV6 = 0x0800, 0x86DD
_BYTE_ORDER = 0x1A2B3C4D
_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_END, _IF_NAME, _IF_RESOLUTION, _IF_FILTER, _EPB_FLAGS, _APPLICATION = 0, 2, 9, 11, 2, 4
_ISB_RECEIVED, _ISB_DROPPED = 4, 5
_NANOSECONDS = b"\x09"


def begin(snaplen: int, filter_text: str | None) -> bytes:
    """Section header and one interface for each link."""
    header = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)
    blocks = _block(_SECTION, header + _options((_APPLICATION, b"cse")))
    for name in _NAMES:
        options = [(_IF_NAME, name.encode()), (_IF_RESOLUTION, _NANOSECONDS)]
        if filter_text:
            options.append((_IF_FILTER, b"\0" + filter_text.encode()))
        body = struct.pack("<HHI", LINKTYPE, 0, snaplen + COOKED)
        blocks += _block(_INTERFACE, body + _options(*options))
    return blocks


def cooked(data: bytes, link: int, way: int) -> bytes:
    """An IP packet with the header; `way` 0: into the stack, 1: out of it."""
    kind = _IPV6 if data[:1] and data[0] >> 4 == 6 else _IPV4
    return struct.pack("!HHH8xH", _FROM_US if way else _TO_US, _HARDWARE[link], 0, kind) + data


def packet(data: bytes, original: int, link: int, way: int, time_ns: int) -> bytes:
    """An enhanced packet of one that is cooked, `original` bytes long before that."""
    head = struct.pack(
        "<IIIII",
        link,
        time_ns >> 32,
        time_ns & 0xFFFFFFFF,
        len(data),
        max(original + COOKED, len(data)),
    )
    flags = _options((_EPB_FLAGS, struct.pack("<I", way + 1)))
    return _block(_PACKET, head + _padded(data) + flags)


def end(counts: bytes) -> bytes:
    """Statistics of each link, from the instance's counts (seen and dropped, 64 bits each)."""
    if len(counts) != 16 * LINKS:
        return b""
    seen, dropped = struct.unpack(f"<{LINKS}Q", counts[:24]), struct.unpack("<3Q", counts[24:])
    now = time.time_ns()
    blocks = b""
    for link in range(LINKS):
        body = struct.pack("<III", link, now >> 32, now & 0xFFFFFFFF)
        options = _options(
            (_ISB_RECEIVED, struct.pack("<Q", seen[link])),
            (_ISB_DROPPED, struct.pack("<Q", dropped[link])),
        )
        blocks += _block(_STATISTICS, body + options)
    return blocks


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _options(*options: tuple[int, bytes]) -> bytes:
    listed = b"".join(
        struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options
    )
    return listed + struct.pack("<HH", _END, 0)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
