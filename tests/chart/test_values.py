from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wan22.settings import Settings
from wan22_gateway.settings import GatewaySettings
from wan22_registry.node_cache.settings import NodeCacheSettings
from wan22_registry.settings import RegistrySettings
from wan22_testing.chart import CHART, ROOT, Chart
from wan22_testing.cluster.kubectl import Refused

OWNED = {"host", "port", "health_port", "http_port", "plaintext", "tls_ca", "tls_cert", "tls_key", "root", "registry"}
"""Settings that the chart gives by itself."""
OWNED_BY_GATEWAY = OWNED | {"store", "store_password_file", "scratch", "results", "s3_endpoint", "s3_public_endpoint"}
OWNED_BY_GATEWAY |= {"auth", "tenants_file", "public_url", "keda_port", "http"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("gateway.replica=3", "'/gateway': additional properties 'replica' not allowed"),
        ("gatway.replicas=3", "additional properties 'gatway' not allowed"),
        ("gateway.settings.que_limit=3", "'/gateway/settings': additional properties 'que_limit' not allowed"),
        ("gateway.settings.queue_limit=0", "'/gateway/settings/queue_limit': minimum: got 0, want 1"),
        ("gateway.store.url=mysql://x/y", "'/gateway/store/url'"),
        ("gateway.store.url=postgresql://wan22:secret@db/wan22", "'/gateway/store/url'"),
        ("gateway.replicas=2", "'/gateway/store/url': minLength"),
        ("gateway.replicas=2,gateway.store.url=postgresql://wan22@db/wan22", "'/gateway/results/url': minLength"),
        ("gateway.resources.limits=null", "missing property 'limits'"),
        ("gateway.volume.size=much", "'/gateway/volume/size'"),
        ("nodeCache.enabled=true", "'/nodeCache/volume/storageClass': minLength"),
        ("registry.volume.local.path=/mnt/nvme0", "'/registry/volume/local/node': minLength"),
        ("tls.mode=mtls", "'/tls/mode': value must be one of"),
        ("gateway.enabled=false", "'/operator/gateway': minLength"),
        ("registry.enabled=false,operator.registry=far:1", "'/gateway/registry': minLength"),
        ("gateway.tenantsSecret.name=mine", r"operator\.apiKeySecret\.name is empty"),
        ("gateway.routes.enabled=true", "'/gateway/routes/parentRefs': minItems"),
        (
            "gateway.routes.enabled=true,gateway.routes.parentRefs[0].name=public,tls.mode=certManager",
            "by gateway.routes.tlsPolicy.caConfigMap, or set",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(chart: Chart, flag: str, message: str) -> None:
    with pytest.raises(Refused, match=re.escape(message) if "\\" not in message else message):
        chart.objects(f"--set={flag}")


@pytest.mark.parametrize(
    ("component", "settings", "owned"),
    [
        ("gateway", GatewaySettings, OWNED_BY_GATEWAY),
        ("registry", RegistrySettings, OWNED),
        ("nodeCache", NodeCacheSettings, OWNED),
    ],
)
def test_every_setting_of_a_service_can_be_given_and_no_other(
    schema: dict[str, Any], component: str, settings: type[Settings], owned: set[str]
) -> None:
    listed = schema["properties"][component]["properties"]["settings"]
    assert set(listed["properties"]) == set(settings.model_fields) - owned
    assert listed["additionalProperties"] is False


def test_no_object_of_the_schema_takes_unknown_names(schema: dict[str, Any]) -> None:
    def open_ones(path: str, node: dict[str, Any]) -> list[str]:
        if "properties" not in node:
            return []
        found = [] if node.get("additionalProperties") is False else [path]
        return found + [one for name, inner in node["properties"].items() for one in open_ones(f"{path}.{name}", inner)]

    assert open_ones("", schema) == []


def test_the_table_in_the_docs_is_of_these_values() -> None:
    render = _tool("render_values")
    assert (ROOT / "docs/values.md").read_text() == render.table((CHART / "values.yaml").read_text())


def test_a_row_has_path_default_and_the_comment_above() -> None:
    text = "# Of all.\na:\n  # How many,\n  # at most.\n  b: 1\n  c: {d: [x]}\n"
    rows = list(_tool("render_values").rows(text))
    assert rows == [("a", "", "Of all."), ("a.b", "1", "How many, at most."), ("a.c", '{"d": ["x"]}', "")]


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(ROOT / "tools" / f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
