import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from wan22.settings import Settings, home, unknown_variables


class QueueSettings(Settings):
    model_config = SettingsConfigDict(env_prefix="WAN22_GATEWAY_")

    queue_limit: int = Field(1000, ge=1)
    """Most queued."""
    host: str = "127.0.0.1"
    """Where."""
    reflection: bool = False
    """Whether."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("WAN22_HOME", raising=False)
    return monkeypatch


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        QueueSettings.load("gateway", arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_flag_wins_over_the_variable_and_the_variable_over_the_default(environment: pytest.MonkeyPatch) -> None:
    assert QueueSettings.load("gateway", []).queue_limit == 1000
    environment.setenv("WAN22_GATEWAY_QUEUE_LIMIT", "5")
    assert QueueSettings.load("gateway", []).queue_limit == 5
    assert QueueSettings.load("gateway", ["--queue-limit", "7"]).queue_limit == 7
    assert QueueSettings.load("gateway", ["--queue-limit=8", "--reflection"]).reflection is True


def test_settings_do_not_change() -> None:
    settings, field = QueueSettings.load("gateway", []), "queue_limit"
    with pytest.raises(ValidationError):
        setattr(settings, field, 2)


def test_an_unknown_variable_stops_the_process_and_is_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("WAN22_GATEWAY_QUEUE_LIMT", "5")
    environment.setenv("WAN22_ENDPONIT", "gpu:50051")
    assert refused(capsys).splitlines() == [
        "gateway: WAN22_ENDPONIT is set, but there is no such setting: remove it, or see --help.",
        "gateway: WAN22_GATEWAY_QUEUE_LIMT is set, but there is no such setting: remove it, or see --help.",
    ]


def test_variables_of_clients_and_of_other_services_are_no_concern() -> None:
    environment = {"WAN22_HOME": "/x", "WAN22_API_KEY": "k", "WAN22_WORKER_ANYTHING": "1", "PATH": "/bin"}
    assert unknown_variables(environment, QueueSettings) == []


def test_a_bad_value_stops_the_process_with_flag_variable_and_value(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("WAN22_GATEWAY_QUEUE_LIMIT", "0")
    error = refused(capsys)
    assert error.startswith("gateway: --queue-limit (WAN22_GATEWAY_QUEUE_LIMIT) is '0': ")
    assert "greater than or equal to 1" in error


def test_an_unknown_flag_stops_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--queue-limt" in refused(capsys, "--queue-limt", "5")


def test_home_is_wan22_home_or_a_folder_of_the_user(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HOME", "/home/somebody")
    assert str(home()) == "/home/somebody/.wan22"
    environment.setenv("WAN22_HOME", "~/elsewhere")
    assert str(home()) == "/home/somebody/elsewhere"
