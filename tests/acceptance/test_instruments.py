"""`cse fault`, `capture`, `sockets` and `top` on running applications."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.acceptance.test_faults import echo, round_trip_s
from tests.acceptance.world import World, until


def cse(world: World, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "CSE_API": str(world.api.base_url)}
    command = [str(Path(sys.executable).with_name("cse")), *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe)


def said(world: World, *words: str) -> str:
    process = cse(world, *words)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err.decode()
    return out.decode()


def test_fault_add_ls_rm(world: World) -> None:
    address = echo(world, "cli")
    line = said(world, "fault", "add", "cli", "--delay", "70ms", "--seed", "7", "--for", "1m")
    assert "delay 70ms, seed 7, ends in 60 s" in line
    assert round_trip_s(address) >= 0.14
    listed = said(world, "fault", "ls")
    assert "delay 70ms" in listed and "delayed=" in listed
    assert "removed" in said(world, "fault", "rm", "cli")
    assert json.loads(said(world, "fault", "ls", "cli", "--json")) == []
    wrong = cse(world, "fault", "add", "cli", "--loss", "200%")
    _, error = wrong.communicate(timeout=30)
    assert wrong.returncode == 2 and b"/loss" in error


def test_capture_is_a_file_that_tcpdump_reads(world: World) -> None:
    address = echo(world, "cap")
    process = cse(world, "capture", "cap", "--filter", "tcp port 9000", "--count", "6")

    def captured() -> bool:
        round_trip_s(address)
        return process.poll() is not None

    until(captured)
    out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    read = subprocess.run(
        ["tcpdump", "-n", "-r", "-"], input=out, capture_output=True, check=True
    ).stdout.decode()
    assert len(read.splitlines()) == 6 and f"{address}.9000" in read
    refused = cse(world, "capture", "cap", "--filter", "port port")
    _, error = refused.communicate(timeout=30)
    assert refused.returncode == 2 and b"/filter" in error


def test_sockets_and_top_show_a_connection(world: World) -> None:
    address = echo(world, "socks")
    with socket.create_connection((address, 9000), timeout=3) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        items = json.loads(said(world, "sockets", "socks", "-t", "--json"))
        own = ":".join(map(str, connection.getsockname()))
        assert [item["local"] for item in items if item["peer"] == own] == [f"{address}:9000"]
        table = said(world, "sockets", "socks", "-t", "-i")
        assert "LISTEN" in table and "ESTAB" in table and "python" in table and "mss:" in table
        lines = said(world, "top", "--json", "-n", "1", "-d", "0.3").splitlines()
        (row,) = (row for row in map(json.loads, lines) if row["application"] == "socks")
        assert row["connections"] == 1 and row["memory"] > 2**20
