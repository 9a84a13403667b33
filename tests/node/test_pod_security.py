"""The namespace is under Pod Security restricted: all of wan22 runs in it, and what asks for more does not."""

from __future__ import annotations

from functools import partial

import pytest

from wan22_testing.cluster.kubectl import Refused

from .release import Release, until

pytestmark = [pytest.mark.node, pytest.mark.timeout(1800)]


def test_a_pod_that_asks_for_more_is_refused_where_wan22_runs(release: Release) -> None:
    container = {"name": "root", "image": release.images.name("gateway"), "securityContext": {"privileged": True}}
    metadata = {"name": "root", "namespace": release.namespace}
    with pytest.raises(Refused, match='violates PodSecurity "restricted:latest": privileged'):
        release.kubectl.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
        )
    for component, count in {"gateway": 1, "registry": 1, "node-cache": 2, "operator": 1}.items():
        until(partial(release.ready, component), count.__eq__)
