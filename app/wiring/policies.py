"""Who may talk to whom, as members of the packet filter's sets.

`homes` says of each application's port which network it is on; `closed` has the networks whose
policy denies by default; `pairs` has the ports on them that may exchange frames all the same;
`members` has the addresses that the host must not route to for a neighbour. Called by `filters`
when a network is made, changes or goes. Wires between private stacks follow the same policy, in
the broker; this is for what goes through taps and the kernel's own stacks.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network

from app.wiring import nft
from app.wiring.nfnetlink import Member, Netfilter, interface, mark

Pair = tuple[str, str]
_PAIR = re.compile(r'(0x[0-9a-f]+|\d+) \. "([^"]+)" \. "([^"]+)"')


def number_of(subnet: IPv4Network) -> bytes:
    """What stands for a network in these sets; no two on a host have the same subnet."""
    return mark(int(subnet.network_address))


def open_network(netfilter: Netfilter, table: str, subnet: IPv4Network) -> None:
    """All ports may talk to each other. Pairs left over say nothing then."""
    netfilter.delete(_closed(table, subnet))


def close_network(netfilter: Netfilter, table: str, subnet: IPv4Network, pairs: set[Pair]) -> None:
    """Only these pairs of ports may, in both directions; what may stay is never cut off."""
    both = pairs | {(other, one) for one, other in pairs}
    present = _present(table, subnet)
    added = [_member(table, subnet, pair) for pair in sorted(both - present)]
    netfilter.add(added + _closed(table, subnet))
    netfilter.delete([_member(table, subnet, pair) for pair in sorted(present - both)])


def _closed(table: str, subnet: IPv4Network) -> list[Member]:
    return [Member("bridge", table, "closed", number_of(subnet))]


def _member(table: str, subnet: IPv4Network, pair: Pair) -> Member:
    key = number_of(subnet) + interface(pair[0]) + interface(pair[1])
    return Member("bridge", table, "pairs", key)


def _present(table: str, subnet: IPv4Network) -> set[Pair]:
    listed = nft.run(f"list set bridge {table} pairs")
    own = int(subnet.network_address)
    return {(one, other) for number, one, other in _PAIR.findall(listed) if int(number, 0) == own}
