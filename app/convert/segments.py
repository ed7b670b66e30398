"""Many segments with common members as few networks, since an application has one network here.

Segments that share a member become one network; its policy lets two members talk if any of the
segments had both. Who may talk to whom stays as it was. Called by `compose.py` and
`containerlab.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import combinations
from typing import Any


@dataclass(frozen=True)
class Joined:
    """Segments that hang together."""

    segments: list[str]
    members: list[str]
    pairs: list[tuple[str, str]]
    """Members of one segment."""

    def policy(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The network's `policy`; nothing where everybody may talk to everybody."""
        if len(self.pairs) == len(self.members) * (len(self.members) - 1) // 2:
            return {}
        allowed = [[names[one], names[other]] for one, other in self.pairs]
        return {"policy": {"default": "deny", "allow": allowed}}


def joined(segments: Mapping[str, Sequence[str]]) -> list[Joined]:
    """Segment → members, in the order of the file."""
    parts: list[list[str]] = []
    for name, members in segments.items():
        near = [part for part in parts if any(set(segments[one]) & set(members) for one in part)]
        first = [one for part in near for one in part]
        parts = [part for part in parts if part not in near] + [[*first, name]]
    found = []
    for part in parts:
        members = list(dict.fromkeys(member for name in part for member in segments[name]))
        together = [set(segments[name]) for name in part]
        pairs = [
            (one, other)
            for one, other in combinations(members, 2)
            if any(one in segment and other in segment for segment in together)
        ]
        found.append(Joined(part, members, pairs))
    return found


def free_subnets(taken: Sequence[str]) -> list[str]:
    """Subnets out of 10.211.0.0/16 to 10.254.0.0/16 that overlap none of these."""
    used = [IPv4Network(subnet, strict=False) for subnet in taken]
    every = (IPv4Network((10 << 24 | number << 16, 16)) for number in range(211, 255))
    return [str(subnet) for subnet in every if not any(map(subnet.overlaps, used))]
