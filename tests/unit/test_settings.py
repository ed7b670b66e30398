"""Settings: documented, checked, and never silently misspelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.domain.errors import InvalidSpecification
from app.settings import Settings, load, product_version, reference


def test_every_setting_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no docstring"
    text = (Path(__file__).resolve().parents[2] / "docs/settings.md").read_text()
    assert text == reference(), "run `make schemas`"


def test_flags_win_over_variables_and_variables_over_defaults(tmp_path: Path) -> None:
    environment = {"CSE_WORKERS": "3", "CSE_STATE_DIR": str(tmp_path), "CSE_LOG_LEVEL": ""}
    settings = load(environment, workers=5, listen=None)
    assert (settings.workers, settings.state_dir) == (5, tmp_path)
    assert settings.log_level == "warning"
    assert settings.database_url == f"sqlite:///{tmp_path}/store.sqlite"


def test_variables_of_libraries_and_of_others_are_left_alone() -> None:
    load({"CSE_NETWORK_ADDRESS": "10.0.0.1", "CSE_TRACE": "1", "CSE_BENCH": "x", "HOME": "/"})


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CSE_LISTN": "x"}, "did you mean CSE_LISTEN?"),
        ({"CSE_LISTEN": "localhost"}, "HOST:PORT"),
        ({"CSE_AGENT": "tcp://x"}, "unix:PATH"),
        ({"CSE_WORKERS": "0"}, "CSE_WORKERS"),
        ({"CSE_SUBNET": "10.0.0.1/33"}, "CSE_SUBNET"),
    ],
)
def test_faults_name_the_variable(environment: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSpecification) as caught:
        load(environment)
    assert said in str(caught.value)


def test_sockets_and_addresses() -> None:
    assert load({"CSE_LISTEN": "unix:/run/x"}).unix_listen == "/run/x"
    assert load({"CSE_LISTEN": "[::1]:80"}).listen_address == ("::1", 80)
    assert load({"CSE_AGENT": "unix:/run/a"}).agent_socket == "/run/a"
    # A separate agent sees the host's files, this process perhaps does not.
    assert not load({"CSE_AGENT": "unix:/run/a"}).paths_are_visible
    assert load({}).paths_are_visible
    assert product_version().count(".") == 2
