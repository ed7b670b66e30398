"""Figures: each file measures one thing, us and a peer in turn; `make bench` runs them."""
