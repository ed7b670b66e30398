"""Claim 10: the element is linked as the application is loaded, to its own instance."""

from __future__ import annotations

import re
from functools import partial

from tests.acceptance.world import World, curl, maps, until

BINDING = re.compile(r"binding file (\S+) .* to (\S+) .*: normal symbol `(socket|connect)'")


def test_the_loader_binds_the_programs_calls_to_the_element(world: World) -> None:
    world.run("app", ["sleep", "300"], elements={"network-lwip": {}})
    result = world.exec("app", "env", "LD_DEBUG=bindings", "LD_BIND_NOW=1", "curl", "--version")
    bound = {(m[1].rsplit("/", 1)[-1], m[3]): m[2] for m in BINDING.finditer(result.stderr)}
    users = [target for (file, _), target in bound.items() if file.startswith("libcurl")]
    assert users, result.stderr[-2000:]
    assert all(target == "/run/cse/lib/network-lwip/libcse-net.so" for target in users)


def test_each_link_leads_to_its_own_instance(world: World) -> None:
    arenas = {}
    for name in ("first", "second"):
        world.run(name, ["python3", "-m", "http.server", "80"], elements={"network-lwip": {}})
        address = world.address(name)
        assert "Directory listing" in until(partial(curl, f"http://{address}/"))
        rows = maps(world.pids(name)[0])
        arenas[name] = {row[2] for row in rows if row[3].startswith("/memfd:cse-net")}
    assert arenas["first"] and arenas["second"] and not arenas["first"] & arenas["second"]
