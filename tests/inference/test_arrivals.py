from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from wan22.errors import Cancelled, DataLoss, Reason, Unavailable
from wan22_inference.engine.arrivals import Arrivals


def go_on() -> bool:
    return False


def test_a_model_that_is_whole_is_not_waited_for() -> None:
    arrivals = Arrivals()
    arrivals.wait("vae", go_on)
    assert not arrivals.wait_for_all(go_on)
    assert arrivals.failure is None


def test_a_part_is_waited_for_until_it_arrives_and_no_longer() -> None:
    arrivals, looked = Arrivals(["vae", "verified"]), threading.Event()

    def look() -> bool:
        looked.set()
        return False

    with ThreadPoolExecutor(2) as pool:
        part, everything = pool.submit(arrivals.wait, "vae", look), pool.submit(arrivals.wait_for_all, go_on)
        assert looked.wait(10.0)
        assert not part.done()
        arrivals.arrive("vae")
        part.result(10.0)
        assert not everything.done()
        arrivals.arrive("verified")
        assert everything.result(10.0)


def test_a_failure_ends_all_waiting_and_is_the_workers() -> None:
    arrivals, heard = Arrivals(["vae"]), list[str]()
    arrivals.on_failure(lambda: heard.append("before"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(arrivals.wait, "vae", go_on)
        arrivals.fail(DataLoss("vae/x is damaged.", reason=Reason.DIGEST_MISMATCH))
        with pytest.raises(Unavailable, match=r"could not load its model while it ran: vae/x is damaged") as caught:
            waiting.result(10.0)
    assert caught.value.reason is Reason.WORKER_LOADING
    arrivals.on_failure(lambda: heard.append("after"))
    assert heard == ["before", "after"]
    with pytest.raises(Unavailable):
        arrivals.wait_for_all(go_on)
    arrivals.wait("text_encoder", go_on)  # what is there is there


def test_a_stop_ends_the_waiting() -> None:
    with pytest.raises(Cancelled):
        Arrivals(["vae"]).wait("vae", lambda: True)
