import io

from rich.console import Console

from wan22.v1.generation_pb2 import (
    AttemptEnd,
    AttemptStart,
    Generation,
    GenerationEvent,
    Progress,
    QueueSnapshot,
    StateChange,
)
from wan22_cli.progress import ProgressBar, describe

EVENTS = [
    (
        GenerationEvent(queue=QueueSnapshot(queue_position=2, waiting_for="its turn")),
        "queued, position 2, waits for its turn",
    ),
    (GenerationEvent(attempt_start=AttemptStart(attempt=1, worker="workers/a")), "attempt 1 on workers/a"),
    (GenerationEvent(progress=Progress(stage=Progress.ENCODING_TEXT)), "encoding the text"),
    (GenerationEvent(progress=Progress(stage=Progress.DENOISING, step=3, num_steps=4)), "denoising, step 3 of 4"),
    (GenerationEvent(progress=Progress(stage=Progress.DECODING)), "decoding the frames"),
    (
        GenerationEvent(attempt_end=AttemptEnd(attempt=1, reason="The worker was lost.")),
        "attempt 1 ended, it is queued again: The worker was lost.",
    ),
    (GenerationEvent(state_change=StateChange(state=Generation.SUCCEEDED)), "succeeded"),
    (GenerationEvent(state_change=StateChange(state=Generation.FAILED, error={"message": "No."})), "failed: No."),
    (
        GenerationEvent(attempt_start=AttemptStart(attempt=2, worker="workers/b", resumed_step=12)),
        "attempt 2 on workers/b, from step 12 on",
    ),
    (
        GenerationEvent(attempt_start=AttemptStart(attempt=2, worker="workers/b", restart_reason="it is damaged")),
        "attempt 2 on workers/b, from the beginning: it is damaged",
    ),
    (GenerationEvent(), "an event that this version does not know"),
]


def test_each_event_has_words() -> None:
    assert [describe(event) for event, _ in EVENTS] == [words for _, words in EVENTS]


def test_elsewhere_than_on_a_terminal_each_change_is_one_line() -> None:
    console = Console(file=io.StringIO(), record=True, width=200)
    with ProgressBar(console) as bar:
        for event, _ in EVENTS[:5]:
            bar.show(event)
            bar.show(event)
    assert console.export_text().splitlines() == [words for _, words in EVENTS[:5]]


def test_on_a_terminal_a_bar_shows_steps_and_a_lost_attempt_stays() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    with ProgressBar(console) as bar:
        bar.show(EVENTS[3][0])
        assert "denoising, step 3 of 4" in screen.getvalue()
        assert "━" * 30 in screen.getvalue()  # three quarters of 40
        bar.show(EVENTS[5][0])
    assert "attempt 1 ended, it is queued again: The worker was lost.\n" in screen.getvalue().replace("\r", "")
