"""`make bench-network`: one file for each figure that the network element is held to.

Each has `measure() -> list[Figure]`. Programs run unmodified, here and at the peer.
"""
