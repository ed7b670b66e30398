"""Desired state, allocations and events, in one SQL database."""
