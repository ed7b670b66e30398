"""`cse run`: one program at once, in the foreground, without a server."""

from __future__ import annotations

import secrets
import sys
import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from app.catalog import resolve
from app.catalog.catalog import Catalog
from app.catalog.schema import SettingsSchema
from app.cli.debugger import under
from app.cli.failures import ExitStatus, Failed, report
from app.domain.application import ApplicationSpec, RuntimeName
from app.domain.errors import CseError, InvalidSpecification, PreflightRefused
from app.domain.explain import InvalidFields, explain
from app.domain.launch import Launch
from app.domain.network import NetworkBinding
from app.domain.observed import Coverage, State
from app.domain.ports import Agent
from app.settings import Settings, load

if TYPE_CHECKING:
    from app.store.store import Store

Many = list[str] | None


def register(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(
        "run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
    )(run)


def run(
    command: Annotated[list[str], typer.Argument(help="Program and arguments.")],
    element: Annotated[
        Many,
        typer.Option("--element", "-e", help="An element to link; NAME=DIRECTORY: a build of it."),
    ] = None,
    setting: Annotated[
        Many, typer.Option("--set", "-s", help="ELEMENT.KEY=VALUE, as in network-lwip.mss=1460.")
    ] = None,
    mount: Annotated[
        Many, typer.Option("--mount", "-m", help="SOURCE:PATH[:rw] of this host, read-only.")
    ] = None,
    volume: Annotated[Many, typer.Option("--volume", help="NAME:PATH[:ro], made if new.")] = None,
    environment: Annotated[Many, typer.Option("--env", help="NAME=VALUE.")] = None,
    publish: Annotated[Many, typer.Option("--publish", "-p", help="[ADDRESS:]HOST:PORT.")] = None,
    address: Annotated[str | None, typer.Option(help="A fixed address.")] = None,
    network: Annotated[str, typer.Option(help="The network to plug into.")] = "default",
    user: Annotated[str | None, typer.Option("--user", "-u", help="USER or UID[:GID].")] = None,
    directory: Annotated[str | None, typer.Option("--directory", "-w")] = None,
    memory: Annotated[str | None, typer.Option(help="A limit, as in 256M.")] = None,
    runtime: Annotated[RuntimeName | None, typer.Option()] = None,
    image: Annotated[str | None, typer.Option(help="For the docker runtime.")] = None,
    variant: Annotated[str, typer.Option(help="release, debug or asan.")] = "release",
    debugger: Annotated[
        str | None, typer.Option(help="Run it under this, as in gdb or 'gdb -batch -ex run'.")
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback-kernel", help="Use the kernel's stack where need be.")
    ] = False,
) -> None:
    """Run one program with elements linked, here and now; no server is needed.

    Its input and output are this terminal's, its exit status is this command's. It may write to
    the current directory; of the rest of this host's files it sees what it would see, read-only.
    """
    try:
        settings = load()
        words = command[1:] if command[0] == "--" else command
        catalog = Catalog(settings.elements_dir)
        elements = _elements(element or [], setting or [], catalog)
        for use in elements.values():
            use["variant"] = variant
        here = str(Path.cwd())
        mounts = [*map(_mount, mount or []), *map(_volume, volume or [])]
        body: dict[str, Any] = {
            "name": f"run-{secrets.token_hex(4)}",
            "command": words,
            "runtime": runtime or settings.runtime,
            "image": image,
            "elements": elements,
            "network": {"name": network, "address": address},
            "ports": publish or [],
            "environment": dict(_pair(item, "--env") for item in environment or []),
            "working_directory": directory or here,
            "user": user,
            "mounts": mounts,
            "limits": {"memory": memory},
            "fallback": "kernel" if fallback else "refuse",
        }
        if directory is None and body["runtime"] == RuntimeName.DOCKER:
            del body["working_directory"]
        elif directory is None and here not in {"/", *(one["path"] for one in mounts)}:
            mounts.append({"from": here, "path": here, "read_only": False})
        spec = resolve.in_numbers(_validated(body), catalog)
        if errors := resolve.check(spec, catalog):
            raise InvalidFields(errors)
        status = _run(settings, catalog, spec, debugger)
    except CseError as error:
        report(error)
        raise Failed(ExitStatus.NOT_STARTED) from error
    raise Failed(status)


def _run(
    settings: Settings, catalog: Catalog, spec: ApplicationSpec, debugger: str | None = None
) -> int:
    from app.cli.local import private_agent, server_is_there
    from app.main import open_store

    store, on_network = open_store(settings), resolve.uses_network(spec, catalog)

    def give_back(name: str) -> None:
        with store.write() as transaction:
            transaction.applications.release_lease(name)

    with closing(store), private_agent(settings, spec.name, give_back) as agent:
        try:
            binding = _bind(store, agent, catalog, spec)
            names = {mount.volume for mount in spec.mounts if mount.volume}
            volumes = {name: agent.ensure_volume(name) for name in names}
            launch_id = f"run-{secrets.token_hex(6)}"
            launch = resolve.launch(launch_id, spec, catalog, binding, volumes)
            if debugger is not None:
                _must_be_private(agent.preflight(launch))
                launch = under(debugger, launch)
            with _Progress(agent):
                return _in_foreground(agent, launch)
        finally:
            for told in agent.reports(after=0):
                if told.activity is None:
                    sys.stderr.write(f"cse: {told.text}\n")
            agent.remove(spec.name)
            with store.write() as transaction:
                transaction.applications.release_lease(spec.name)
                unused = not transaction.networks.holders(spec.network.name)
                if on_network and unused and not server_is_there(settings):
                    agent.remove_network(spec.network.name)


class _Progress:
    """While the program runs: tells what it waits for. Other reports come when it has ended, since
    the terminal is the program's."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=1.0)

    def _tell(self) -> None:
        last, over = 0, False
        while not over:
            over = self._over.wait(0.5)
            for told in self._agent.reports(after=last):
                last = told.number
                if told.activity is not None:
                    sys.stderr.write(f"cse: {told.text}\n")


def _bind(
    store: Store, agent: Agent, catalog: Catalog, spec: ApplicationSpec
) -> NetworkBinding | None:
    """An address that no application of this host's server has either."""
    if not resolve.uses_network(spec, catalog):
        return None
    with store.write() as transaction:
        network = transaction.networks.get(spec.network.name)
        address = transaction.applications.lease(network, spec)
    agent.ensure_network(network)
    return resolve.binding(network, address, spec)


def _in_foreground(agent: Agent, launch: Launch) -> int:
    coverage = agent.create(launch)
    _must_be_private(coverage)
    if coverage.verdict == "kernel":
        sys.stderr.write(f"cse: on the kernel's own stack: {coverage.reason}\n")
    own = getattr(agent, "run_foreground", None)
    if own is not None and launch.spec.runtime is RuntimeName.NAMESPACE:
        return int(own(launch.name))
    observed = agent.start(launch.name)
    try:
        for line in agent.logs(launch.name, follow=True):
            stream = sys.stderr if line.stream == "stderr" else sys.stdout
            stream.write(line.text + "\n")
            stream.flush()
        observed = agent.wait(launch.name)
    except KeyboardInterrupt:
        observed = agent.stop(launch.name)
    if observed.state is State.FAILED:
        sys.stderr.write(f"cse: {observed.reason}\n")
        return ExitStatus.NOT_STARTED
    return observed.exit_code if observed.exit_code is not None else ExitStatus.FAILED


def _must_be_private(coverage: Coverage) -> None:
    if coverage.verdict == "refused":
        remedy = coverage.remedy or None
        raise PreflightRefused(coverage.reason, pointer="/command/0", remedy=remedy)


def _elements(names: list[str], settings: list[str], catalog: Catalog) -> dict[str, Any]:
    uses: dict[str, Any] = {}
    for item in names:
        name, equals, path = item.partition("=")
        uses[name] = {"settings": {}}
        if equals:
            uses[name]["path"] = str(Path(path).expanduser().resolve())
    for item in settings:
        path, value = _pair(item, "--set")
        name, dot, rest = path.partition(".")
        if not dot:
            raise InvalidSpecification(f"--set {item}: write ELEMENT.KEY=VALUE")
        place: Any = uses.setdefault(name, {"settings": {}})["settings"]
        keys = rest.split(".")
        for key, following in pairwise(keys):
            place = _step(place, key, [] if following.isdigit() else {})
        _put(place, keys[-1], _value(value, item))
    for name, use in uses.items():
        schema = SettingsSchema(catalog.entry(name, use.get("path")).element.manifest.settings)
        for found, text in list(schema.host_paths(use["settings"])):
            parent: Any = use["settings"]
            for part in found[:-1]:
                parent = parent[part]
            parent[found[-1]] = str(Path(text).expanduser().resolve())
    return uses


def _step(place: Any, key: str, empty: Any) -> Any:
    if isinstance(place, list):
        if int(key) == len(place):
            place.append(empty)
        return place[int(key)]
    return place.setdefault(key, empty)


def _put(place: Any, key: str, value: Any) -> None:
    if isinstance(place, list):
        place.insert(int(key), value)
    else:
        place[key] = value


def _value(text: str, item: str) -> Any:
    """Numbers and booleans as in a stack file, everything else as text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSpecification(f"--set {item}: '{text}' is not a value") from error


def _mount(text: str) -> dict[str, Any]:
    source, path, mode = _three(text, "--mount", "SOURCE:PATH[:rw]")
    absolute = str(Path(source).expanduser().resolve())
    return {"from": absolute, "path": path, "read_only": mode != "rw"}


def _volume(text: str) -> dict[str, Any]:
    name, path, mode = _three(text, "--volume", "NAME:PATH[:ro]")
    return {"volume": name, "path": path, "read_only": mode == "ro"}


def _three(text: str, option: str, form: str) -> tuple[str, str, str]:
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise InvalidSpecification(f"{option} {text}: write {form}")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidSpecification(f"{option} {text}: write NAME=VALUE")
    return key, value


def _validated(body: dict[str, Any]) -> ApplicationSpec:
    try:
        return ApplicationSpec.model_validate(body)
    except ValidationError as error:
        raise InvalidFields(explain(error.errors(), ApplicationSpec)) from error
