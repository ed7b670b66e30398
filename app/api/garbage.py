"""`POST /v1/gc`: what is owned and unneeded, listed or removed. Called by `cse gc`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.problems import RESPONSES
from app.api.services import Given, Services
from app.domain.leftover import Leftover
from app.domain.resources import Page

router = APIRouter(prefix="/v1/gc", tags=["host"], responses=RESPONSES)


@router.post("", operation_id="collectGarbage")
def collect(
    services: Given,
    dry_run: Annotated[bool, Query(description="List only; remove nothing.")] = False,
    volumes: Annotated[
        bool, Query(description="Also volumes that no record stands for, with what is in them.")
    ] = False,
) -> Page[Leftover]:
    """What this installation has made on the host and nobody needs any more.

    Nothing without this installation's mark is touched, and nothing that is in the store but a
    bridge that nobody is plugged into: it is made again when it is needed.
    """
    with services.store.read() as transaction:
        kept = {volume.name for volume in transaction.volumes.all()}
    found = [
        one for one in services.agent.leftovers() if one.kind != "volume" or (one.name not in kept)
    ]
    found += _leases(services, dry_run=dry_run)
    if dry_run:
        return Page(items=found)
    done = []
    for one in found:
        if one.kind == "volume" and not volumes:
            done.append(one)
            continue
        if one.kind == "network":  # not the agent alone: the loop would take it for made
            services.convergence.remove_network(one.name)
        elif one.kind != "lease":
            services.agent.discard(one)
        done.append(one.model_copy(update={"removed": True}))
    if any(one.removed for one in done):
        text = ", ".join(f"{one.kind} {one.name}" for one in done if one.removed)
        services.store.record_event("collected", None, text)
    return Page(items=done)


def _leases(services: Services, *, dry_run: bool) -> list[Leftover]:
    """Not of a shared store: of other hosts' programs nobody knows here whether they are gone."""
    if services.store.is_shared:
        return []
    observed = {one.name for one in services.agent.observe()}
    with services.store.write() as transaction:
        held = transaction.applications.leases()
        present = observed | services.runs()  # after `held`: who takes an address is there before
        names = [name for name in held if name not in present]
        for name in names if not dry_run else ():
            transaction.applications.release_lease(name)
    return [
        Leftover(kind="lease", name=name, detail="an address of a program that is gone")
        for name in names
    ]
