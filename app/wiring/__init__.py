"""Bridges, taps, published ports and filters on this host: what private stacks plug into."""
