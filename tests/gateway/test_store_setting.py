"""Which store the settings name, and that a password stays out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest

from wan22_gateway.settings import GatewaySettings

URL = "postgresql://wan22@db.example:5432/wan22?sslmode=verify-full"


def test_a_folder_is_the_embedded_store_and_its_own_scratch_folder(tmp_path: Path) -> None:
    settings = GatewaySettings.load("test", ["--store", str(tmp_path / "store")])
    assert settings.store == settings.local_folder == tmp_path / "store"


def test_a_url_is_a_postgresql_store_beside_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_HOME", str(tmp_path))
    monkeypatch.setenv("WAN22_GATEWAY_STORE", URL)
    assert GatewaySettings.load("test", []).store == URL
    assert GatewaySettings.load("test", []).local_folder == tmp_path / "gateway"
    assert GatewaySettings.load("test", ["--scratch", str(tmp_path / "x")]).local_folder == tmp_path / "x"
    assert GatewaySettings.load("test", []).store_name == "postgresql://wan22@db.example:5432/wan22"


@pytest.mark.parametrize(
    "url", ["postgresql://wan22:hunter2@db/wan22", "postgresql://wan22@db/wan22?password=hunter2&sslmode=require"]
)
def test_a_password_in_the_url_is_refused_without_being_shown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        GatewaySettings.load("test", ["--store", url])
    said = capsys.readouterr().err
    assert "use store_password_file" in said
    assert "hunter2" not in said
