import asyncio
import shlex
import signal
from pathlib import Path

import pytest

from wan22.v1.generation_pb2 import Generation, GenerationEvent, Preview, StateChange
from wan22_testing.memory_gateway_servicer import MemoryGateway
from wan22_testing.wan22_command import Wan22Command

TINY = "t2v-a14b-tiny"
VIDEO = b"an MP4" * 1000


async def test_generate_leaves_an_mp4_and_prints_its_path(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    gateway.worker = lambda name: gateway.succeed(name, VIDEO)

    result = await wan22("generate", "a cat", "-o", "cat.mp4", "--variant", TINY, "--seed", "7", "--label", "team=a")

    assert (result.exit_code, result.out) == (0, "cat.mp4\n")
    assert (wan22.folder / "cat.mp4").read_bytes() == VIDEO
    (record,) = gateway.records.values()
    assert record.generation.parameters.seed == 7
    assert dict(record.generation.labels) == {"team": "a"}
    lines = result.err.splitlines()
    assert "attempt 1 on workers/memory-0" in lines
    assert "denoising, step 4 of 4" in lines
    assert lines[-1].startswith(f"{record.generation.name}: 128x128, 17 frames at 8 fps, seed 7, 6 kB, ")


async def test_every_option_reaches_its_parameter(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    (wan22.folder / "first.png").write_bytes(b"first")
    (wan22.folder / "last.png").write_bytes(b"last")
    arguments = shlex.split(
        "--steps 5 --width 64 --height 96 --frames 9 --fps 8 --guidance-high 2.5 --guidance-low 1.5"
    )
    arguments += shlex.split("--shift 3 --boundary 0.8 --solver dpmpp --image first.png --last-image last.png")
    arguments += ["--seed", "1", "--omit-prompt", "--detach"]

    result = await wan22(
        "generate", "a cat", "--variant", "i2v-a14b-tiny", "--negative-prompt", "", *arguments, "--json"
    )

    assert result.exit_code == 0, result.err
    images = {data: name for name, data in gateway.media.items()}
    assert result.json()["parameters"] == {
        "prompt": "a cat",
        "negative_prompt": "",
        "num_inference_steps": 5,
        "width": 64,
        "height": 96,
        "num_frames": 9,
        "fps": 8,
        "guidance_scale_high": 2.5,
        "guidance_scale_low": 1.5,
        "flow_shift": 3.0,
        "boundary": 0.8,
        "solver": "DPMPP",
        "profile": "QUALITY",
        "cut_prompt": False,
        "omit_prompt": True,
        "seed": "1",
        "image": images[b"first"],
        "last_image": images[b"last"],
    }


async def test_json_is_the_finished_generation_with_the_path(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    gateway.worker = lambda name: gateway.succeed(name, VIDEO)
    result = await wan22("generate", "a cat", "-o", "cat.mp4", "--variant", TINY, "--json")
    said = result.json()
    assert (said["state"], said["path"], said["video"]["size_bytes"]) == ("SUCCEEDED", "cat.mp4", "6000")


async def test_a_count_leaves_as_many_files(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    async def worker(name: str) -> None:
        await gateway.succeed(name, VIDEO)

    gateway.worker = worker
    result = await wan22("generate", "a cat", "--variant", "t2v-a14b-tiny", "--count", "3", "-o", "cat.mp4")
    assert result.exit_code == 0, result.err
    assert result.out == "cat-1.mp4\ncat-2.mp4\ncat-3.mp4\n"
    assert [(wan22.folder / f"cat-{number}.mp4").read_bytes() for number in (1, 2, 3)] == [VIDEO] * 3
    assert [record.generation.parameters.seed for record in gateway.records.values()] == [42, 43, 44]


async def test_the_newest_preview_is_in_its_file_while_the_generation_runs(
    wan22: Wan22Command, gateway: MemoryGateway
) -> None:
    async def worker(name: str) -> None:
        record = gateway.records[name]
        for step in (2, 4):
            await record.show(Preview(step=step, num_steps=6, image=b"webp %d" % step))
        await gateway.succeed(name, VIDEO)

    gateway.worker = worker
    flags = ("--preview", "cat.webp", "--preview-every", "2")
    result = await wan22("generate", "a cat", "-o", "cat.mp4", "--variant", TINY, *flags)
    assert result.exit_code == 0, result.err
    assert (wan22.folder / "cat.webp").read_bytes() == b"webp 4"
    assert "webp" not in result.err
    (record,) = gateway.records.values()
    assert record.generation.preview_interval == 2


async def test_a_preview_needs_a_file_that_can_be_written_and_somebody_who_writes_it(wan22: Wan22Command) -> None:
    given = ("generate", "a cat", "--variant", TINY)
    detached = await wan22(*given, "--detach", "--preview", "cat.webp")
    nowhere = await wan22(*given, "-o", "cat.mp4", "--preview", "nowhere/cat.webp")
    assert (detached.exit_code, nowhere.exit_code) == (2, 2)
    assert "of no use with --detach" in detached.err
    assert "no folder that can be written" in nowhere.err


async def test_turbo_and_cut_prompt_reach_their_parameters(wan22: Wan22Command) -> None:
    flags = ("--profile", "turbo", "--cut-prompt", "--detach", "--json")
    result = await wan22("generate", "a cat", "--variant", "t2v-a14b-tiny", *flags)
    assert result.exit_code == 0, result.err
    parameters = result.json()["parameters"]
    assert (parameters["profile"], parameters["cut_prompt"], parameters["num_inference_steps"]) == ("TURBO", True, 4)


async def test_detach_prints_the_name_and_leaves_the_generation_queued(
    wan22: Wan22Command, gateway: MemoryGateway
) -> None:
    result = await wan22("generate", "a cat", "--variant", TINY, "--detach")
    (record,) = gateway.records.values()
    assert (result.exit_code, result.out) == (0, f"{record.generation.name}\n")
    assert record.generation.state == Generation.QUEUED


async def test_several_served_variants_must_be_told_apart(wan22: Wan22Command) -> None:
    result = await wan22("generate", "a cat", "-o", "cat.mp4")
    assert result.exit_code == 2
    assert "say which by --variant: i2v-a14b, i2v-a14b-tiny" in result.err


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (
            StateChange(state=Generation.FAILED, error={"code": 13, "message": "Latents are not finite."}),
            "failed: Latents are not finite.",
        ),
        (StateChange(state=Generation.CANCELLED), "was cancelled."),
    ],
)
async def test_a_generation_without_a_video_is_exit_code_1(
    wan22: Wan22Command, gateway: MemoryGateway, end: StateChange, text: str
) -> None:
    gateway.worker = lambda name: gateway.records[name].append(GenerationEvent(state_change=end))
    result = await wan22("generate", "a cat", "-o", "cat.mp4", "--variant", TINY)
    (name,) = gateway.records
    assert (result.exit_code, result.out) == (1, "")
    assert result.err.splitlines()[-1] == f"Error: {name} {text}"
    assert not (wan22.folder / "cat.mp4").exists()


async def test_ctrl_c_cancels_the_generation(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    created = asyncio.Event()

    async def stay_queued(name: str) -> None:
        created.set()

    gateway.worker = stay_queued
    process = await wan22.start("generate", "a cat", "-o", "cat.mp4", "--variant", TINY)
    await asyncio.wait_for(created.wait(), 30)
    process.send_signal(signal.SIGINT)
    result = await wan22.finish(process)

    (record,) = gateway.records.values()
    assert result.exit_code == 130
    assert record.generation.state == Generation.CANCELLED
    assert result.err.splitlines()[-1] == f"Cancelled {record.generation.name}."


async def test_a_request_that_breaks_rules_is_exit_code_2_with_each_field(wan22: Wan22Command) -> None:
    result = await wan22("generate", " ", "-o", "cat.mp4", "--variant", TINY, "--frames", "16")
    assert (result.exit_code, result.out) == (2, "")
    assert result.err.splitlines() == [
        "Error: the request is wrong in several fields.",
        "  parameters.prompt: prompt is empty: say what to show.",
        "  parameters.num_frames: num_frames is 16: use 4n + 1 in [1, 161], such as 13 or 17.",
    ]


async def test_an_unknown_variant_is_exit_code_1_naming_the_served_ones(wan22: Wan22Command) -> None:
    result = await wan22("generate", "a cat", "-o", "cat.mp4", "--variant", "t2v")
    assert result.exit_code == 1
    assert result.err.startswith("Error: variant is 't2v': served are t2v-a14b,")


async def test_an_unreachable_gateway_is_exit_code_3(tmp_path: Path) -> None:
    result = await Wan22Command(tmp_path, WAN22_ENDPOINT="127.0.0.1:1")("generate", "a cat", "-o", "cat.mp4")
    assert result.exit_code == 3
    assert result.err.startswith("Error: 127.0.0.1:1 did not answer for 5 s (")
    assert "start a gateway there by `wan22 up`" in result.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["generate", "a cat"], "say where the MP4 goes, or use --detach"),
        (["generate", "a cat", "-o", "nowhere/cat.mp4"], "nowhere is no folder that can be written"),
        (["generate", "a cat", "-o", "cat.mp4", "--image", "none.png"], "'none.png' does not exist"),
        (["generate", "a cat", "-o", "cat.mp4", "--label", "team"], "'team' is no label: use KEY=VALUE"),
        (["generate", "a cat", "-o", "cat.mp4", "--endpoint", "http://x:1"], "use host:port without a scheme"),
        (["generate", "a cat", "--no-such-option"], "No such option: --no-such-option"),
    ],
)
async def test_bad_usage_is_exit_code_2_and_says_what_to_do(tmp_path: Path, arguments: list[str], text: str) -> None:
    result = await Wan22Command(tmp_path)(*arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert text in result.err
    assert "Traceback" not in result.err


async def test_a_misspelt_variable_is_exit_code_2(tmp_path: Path) -> None:
    result = await Wan22Command(tmp_path, WAN22_ENDPONIT="gpu:50051")("variants")
    assert result.exit_code == 2
    assert result.err == "Error: WAN22_ENDPONIT is set, but there is no such setting: remove it, or see --help.\n"


async def test_adapters_are_given_with_strength_and_expert(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    loras = ["--lora", "style:v2=0.8,high", "--lora", "other,LOW", "--lora", "plain=-0.5"]
    result = await wan22("generate", "a cat", "--variant", TINY, "--detach", "--json", *loras)
    assert result.exit_code == 0, result.err
    given = [
        (lora["adapter"].split("/")[1], lora["expert"], lora["strength"])
        for lora in result.json()["parameters"]["loras"]
    ]
    assert given == [("style", "HIGH", 0.8), ("other", "LOW", 1.0), ("plain", "BOTH", -0.5)]


@pytest.mark.parametrize("text", ["style=much", "style,all", "style=0.5,high,low"])
async def test_an_adapter_that_is_not_well_written_is_refused(wan22: Wan22Command, text: str) -> None:
    result = await wan22("generate", "a cat", "--variant", TINY, "--detach", "--lora", text)
    assert result.exit_code == 2
    assert "ADAPTER[=STRENGTH][,EXPERT]" in " ".join(result.err.replace("│", " ").split())
