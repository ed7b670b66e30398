"""Brings the host to what the store says; alone in touching it, through the agent."""
