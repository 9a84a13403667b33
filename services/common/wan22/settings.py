"""Settings: one field, one flag, one environment variable; the flag wins, an unknown WAN22_ name stops the process."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

CLIENT_VARIABLES = frozenset(
    f"WAN22_{name}" for name in ("HOME", "ENDPOINT", "API_KEY", "CA_FILE", "CERT_FILE", "KEY_FILE")
)
SERVICE_PREFIXES = ("WAN22_GATEWAY_", "WAN22_REGISTRY_", "WAN22_CACHE_", "WAN22_WORKER_", "WAN22_OPERATOR_")


def home() -> Path:
    """The folder of `wan22 up`: WAN22_HOME, by default ~/.wan22."""
    return Path(os.environ.get("WAN22_HOME") or "~/.wan22").expanduser().absolute()


class Settings(BaseSettings):
    """Base of each service's frozen settings; a subclass sets `env_prefix` and documents each field below it."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def load(cls, program: str, arguments: Sequence[str] | None = None) -> Self:
        """Reads flags and environment; ends the process with exit code 2 and the names at fault when they are wrong."""
        try:
            problems = unknown_variables(os.environ, cls)
            if problems:
                _stop(program, problems)
            arguments = list(sys.argv[1:] if arguments is None else arguments)
            source: CliSettingsSource[Self] = CliSettingsSource(
                cls, cli_prog_name=program, cli_parse_args=arguments, cli_kebab_case=True, cli_implicit_flags=True
            )
            return cls(_cli_settings_source=source)
        except ValidationError as error:
            _stop(
                program,
                [_explain(cls, str(e["loc"][0]) if e["loc"] else "", e["msg"], e["input"]) for e in error.errors()],
            )
        except SettingsError as error:
            _stop(program, [str(error)])


def unknown_variables(environment: Mapping[str, str], settings: type[Settings]) -> list[str]:
    """Names each WAN22_ variable that is neither a client's, nor this service's, nor under another service's prefix."""
    own = settings.model_config.get("env_prefix") or ""
    known = CLIENT_VARIABLES | {own + field.upper() for field in settings.model_fields}
    others = tuple(prefix for prefix in SERVICE_PREFIXES if prefix != own)
    return [
        f"{name} is set, but there is no such setting: remove it, or see --help."
        for name in sorted(environment)
        if name.startswith("WAN22_") and name not in known and not name.startswith(others)
    ]


def _explain(settings: type[Settings], field: str, message: str, value: object) -> str:
    prefix = settings.model_config.get("env_prefix") or ""
    flag = "--" + field.replace("_", "-")
    shown = re.sub(r"(://[^:@/]*:|password=)[^@&]*", r"\1…", repr(value))  # whoever reads it is not to learn a password
    return f"{flag} ({prefix}{field.upper()}) is {shown}: {message}."


def _stop(program: str, problems: Sequence[str]) -> NoReturn:
    for problem in problems:
        print(f"{program}: {problem}", file=sys.stderr)  # noqa: T201  # before any logging is set up
    raise SystemExit(2)
