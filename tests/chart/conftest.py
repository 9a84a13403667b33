from __future__ import annotations

import pytest

from wan22.errors import FailedPrecondition
from wan22_testing.chart import Chart
from wan22_testing.cluster.programs import Programs


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    try:
        return Chart(Programs.find(), tmp_path_factory.mktemp("chart"))
    except FailedPrecondition as error:
        pytest.skip(error.message)
