"""Elements, templates, networks and volumes: what applications are made of."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api import preconditions
from app.api.preconditions import IfMatch, IfNoneMatch
from app.api.problems import RESPONSES
from app.api.resources import After, Labels, Limit, etag_of, part
from app.api.services import Given
from app.domain import selector
from app.domain.element import Element
from app.domain.errors import Conflict, InvalidSpecification
from app.domain.model import Name
from app.domain.network import DEFAULT_NETWORK, NetworkSpec
from app.domain.resources import ElementResource, Page
from app.domain.template import Template
from app.domain.volume import VolumeSpec

router = APIRouter(prefix="/v1", responses=RESPONSES)


@router.get("/elements", operation_id="listElements", tags=["elements"])
def elements(services: Given, limit: Limit = 1000, after: After = "") -> Page[ElementResource]:
    """The catalogue, by name."""
    found = sorted(services.catalog.elements(), key=lambda one: one.manifest.name)
    return part([_resource(element) for element in found], lambda one: one.name, after, limit)


@router.get("/elements/{name}", operation_id="getElement", tags=["elements"])
def element(services: Given, name: str) -> ElementResource:
    """One element."""
    return _resource(services.catalog.entry(name).element)


@router.get("/templates", operation_id="listTemplates", tags=["elements"])
def templates(services: Given, limit: Limit = 1000, after: After = "") -> Page[Template]:
    """Stack files to begin from, by name, with the paths of the host that runs applications."""
    return part(services.templates.all(), lambda one: one.name, after, limit)


@router.get("/networks", operation_id="listNetworks", tags=["networks"])
def networks(
    services: Given, label: Labels = None, limit: Limit = 1000, after: After = ""
) -> Page[NetworkSpec]:
    """All networks, by name."""
    fits = selector.parse(label)
    with services.store.read() as transaction:
        found = [one for one in transaction.networks.all() if fits(one.labels)]
    return part(found, lambda one: one.name, after, limit)


@router.post("/networks", status_code=201, operation_id="createNetwork", tags=["networks"])
def create_network(services: Given, spec: NetworkSpec, response: Response) -> NetworkSpec:
    """Make a new network, on the host too."""
    with services.store.read() as transaction:
        if transaction.networks.find(spec.name):
            raise _taken("network", spec.name)
    return put_network(services, spec.name, spec, response, None)


@router.get("/networks/{name}", operation_id="getNetwork", tags=["networks"])
def network(services: Given, name: str, response: Response) -> NetworkSpec:
    """One network."""
    with services.store.read() as transaction:
        found = transaction.networks.get(name)
    response.headers["ETag"] = etag_of(found)
    return found


@router.put("/networks/{name}", operation_id="replaceNetwork", tags=["networks"])
def put_network(
    services: Given,
    name: Name,
    spec: NetworkSpec,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> NetworkSpec:
    """Make the network so, on the host too; to change one, say which version (`If-Match`)."""
    _same_name(name, spec.name)
    with services.store.write() as transaction:
        present = transaction.networks.find(name)
        _check(present, spec, if_match, if_none_match)
        is_new = present is None
        if transaction.networks.put(spec):
            # Within the transaction: what the host cannot make is not recorded either.
            services.convergence.ensure_network(spec)
            verb = "created" if is_new else "changed"
            transaction.events.add(f"network-{verb}", None, f"network '{name}' {verb}")
    response.headers["ETag"] = etag_of(spec)
    return spec


@router.delete("/networks/{name}", status_code=204, operation_id="deleteNetwork", tags=["networks"])
def delete_network(services: Given, name: str) -> Response:
    """Remove a network that no application uses."""
    if name == DEFAULT_NETWORK:
        raise InvalidSpecification(
            "the network 'default' always exists", remedy="change it with PUT instead"
        )
    with services.store.write() as transaction:
        transaction.networks.remove(name)
        services.convergence.remove_network(name)
        transaction.events.add("network-removed", None, f"network '{name}' removed")
    return Response(status_code=204)


@router.get("/volumes", operation_id="listVolumes", tags=["volumes"])
def volumes(
    services: Given, label: Labels = None, limit: Limit = 1000, after: After = ""
) -> Page[VolumeSpec]:
    """All volumes, by name."""
    fits = selector.parse(label)
    with services.store.read() as transaction:
        found = [one for one in transaction.volumes.all() if fits(one.labels)]
    return part(found, lambda one: one.name, after, limit)


@router.post("/volumes", status_code=201, operation_id="createVolume", tags=["volumes"])
def create_volume(services: Given, spec: VolumeSpec, response: Response) -> VolumeSpec:
    """Make a new volume."""
    with services.store.read() as transaction:
        if spec.name in {volume.name for volume in transaction.volumes.all()}:
            raise _taken("volume", spec.name)
    return put_volume(services, spec.name, spec, response, None)


@router.get("/volumes/{name}", operation_id="getVolume", tags=["volumes"])
def volume(services: Given, name: str, response: Response) -> VolumeSpec:
    """One volume."""
    with services.store.read() as transaction:
        found = transaction.volumes.get(name)
    response.headers["ETag"] = etag_of(found)
    return found


@router.put("/volumes/{name}", operation_id="replaceVolume", tags=["volumes"])
def put_volume(
    services: Given,
    name: Name,
    spec: VolumeSpec,
    response: Response,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> VolumeSpec:
    """Make a volume, or change its labels (`If-Match` says which version); its content is kept."""
    _same_name(name, spec.name)
    with services.store.write() as transaction:
        present = {volume.name: volume for volume in transaction.volumes.all()}.get(name)
        _check(present, spec, if_match, if_none_match)
        if transaction.volumes.put(spec):
            services.agent.ensure_volume(name)
            transaction.events.add("volume-changed", None, f"volume '{name}' created or changed")
    response.headers["ETag"] = etag_of(spec)
    return spec


@router.delete("/volumes/{name}", status_code=204, operation_id="deleteVolume", tags=["volumes"])
def delete_volume(services: Given, name: str) -> Response:
    """Delete a volume that no application mounts, with what is in it."""
    with services.store.write() as transaction:
        transaction.volumes.remove(name)
        services.agent.remove_volume(name)
        transaction.events.add("volume-removed", None, f"volume '{name}' removed")
    return Response(status_code=204)


def _resource(element: Element) -> ElementResource:
    manifest = element.manifest
    return ElementResource(
        name=manifest.name,
        kind=manifest.kind,
        version=manifest.version,
        summary=manifest.summary,
        description=manifest.description,
        license=manifest.license,
        targets=sorted(manifest.libraries),
        settings=manifest.settings,
        needs=list(manifest.needs),
    )


def _check(
    present: NetworkSpec | VolumeSpec | None,
    wanted: NetworkSpec | VolumeSpec,
    if_match: str | None,
    if_none_match: str | None,
) -> None:
    preconditions.check(etag_of(present) if present else None, if_match, if_none_match)
    if present != wanted:
        preconditions.require(present, if_match, f"'{wanted.name}'")


def _same_name(path: str, body: str) -> None:
    if path != body:
        raise InvalidSpecification(
            f"the body is for '{body}', the path for '{path}'",
            pointer="/name",
            remedy="use the same name in both",
        )


def _taken(kind: str, name: str) -> Conflict:
    return Conflict(
        f"{kind} '{name}' exists already", pointer="/name", remedy="change it with PUT instead"
    )
