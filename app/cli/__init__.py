"""The `cse` command. One file per group of commands; `main` is the entry point."""

from __future__ import annotations


def main() -> int:
    """Run the command line; returns nothing that the interpreter should not see."""
    from app.cli.root import run

    return run()
