import asyncio

from wan22.v1.generation_pb2 import Generation
from wan22_testing.memory_gateway_servicer import MemoryGateway
from wan22_testing.wan22_command import Wan22Command

TINY = "t2v-a14b-tiny"
VIDEO = b"an MP4" * 1000


async def queued(wan22: Wan22Command, prompt: str, *arguments: str) -> str:
    result = await wan22("generate", prompt, "--variant", TINY, "--detach", *arguments)
    assert result.exit_code == 0, result.err
    return result.out.strip()


async def finished(wan22: Wan22Command, gateway: MemoryGateway) -> str:
    name = await queued(wan22, "a cat", "--seed", "7", "--label", "team=a")
    await gateway.succeed(name, VIDEO)
    return name


async def test_list_prints_the_newest_first_up_to_the_limit(wan22: Wan22Command) -> None:
    names = [await queued(wan22, f"cat {number}", "--label", f"n={number}") for number in range(3)]

    table = await wan22("generations", "list", "--limit", "2")
    lines = table.out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "VARIANT", "CREATED", "VIDEO", "UNTIL", "PROMPT"]
    assert [line.split()[:3] for line in lines[1:]] == [[name, "QUEUED", TINY] for name in (names[2], names[1])]

    labelled = await wan22("generations", "list", "--label", "n=1", "--state", "queued", "--json")
    assert [generation["name"] for generation in labelled.json_lines()] == [names[1]]
    assert (await wan22("generations", "list", "--state", "failed", "--json")).out == ""


async def test_a_prompt_is_listed_as_it_is(wan22: Wan22Command) -> None:
    await queued(wan22, "[/b] a [red]cat[/red]")
    assert "[/b] a [red]cat[/red]" in (await wan22("generations", "list")).out


async def test_get_shows_state_parameters_and_result(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    name = await finished(wan22, gateway)

    shown = await wan22("generations", "get", name.removeprefix("generations/"))
    facts = dict(line.split(maxsplit=1) for line in shown.out.splitlines() if not line.startswith("label "))
    assert (facts["name"], facts["state"], facts["seed"], facts["size_bytes"]) == (name, "SUCCEEDED", "7", "6000")
    assert "label team           a" in shown.out.splitlines()

    said = (await wan22("generations", "get", name, "--json")).json()
    assert (said["name"], said["state"], said["parameters"]["seed"]) == (name, "SUCCEEDED", "7")


async def test_a_url_is_printed_with_the_time_that_was_asked_for(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    name = await finished(wan22, gateway)
    assert (await wan22("generations", "url", name)).out == f"https://videos.example.com/{name}.mp4?seconds=3600\n"
    said = (await wan22("generations", "url", name, "--valid-for", "60", "--json")).json()
    assert (said["url"], said["video"]["size_bytes"]) == (f"https://videos.example.com/{name}.mp4?seconds=60", "6000")
    assert (await wan22("generations", "url", name, "--valid-for", "3601")).exit_code == 2


async def test_list_and_get_show_until_when_there_is_a_video(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    name = await queued(wan22, "a cat", "--keep-for", "60")
    assert gateway.records[name].generation.keep_for.ToSeconds() == 60
    await gateway.succeed(name, VIDEO)
    gateway.records[name].generation.video.expire_time.FromJsonString("2030-01-02T03:04:05Z")
    assert "2030-01-02 03:04:05Z" in (await wan22("generations", "list")).out
    assert "video_expires        2030-01-02 03:04:05Z" in (await wan22("generations", "get", name)).out


async def test_get_of_an_unknown_generation_is_exit_code_1(wan22: Wan22Command) -> None:
    result = await wan22("generations", "get", "00000000-0000-0000-0000-000000000000")
    assert result.exit_code == 1
    assert result.err == "Error: There is no generations/00000000-0000-0000-0000-000000000000.\n"


async def test_watch_prints_each_event_after_the_given_one(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    name = await finished(wan22, gateway)
    gateway.break_streams.append(2)

    lines = (await wan22("generations", "watch", name, "--after", "1")).out.splitlines()
    assert lines[0] == "    2  running"
    assert lines[1] == "    3  attempt 1 on workers/memory-0"
    assert [int(line.split()[0]) for line in lines] == list(range(2, 12))
    assert lines[-1] == "   11  succeeded"

    events = (await wan22("generations", "watch", name, "--json")).json_lines()
    assert [event["sequence"] for event in events] == [str(number) for number in range(1, 12)]
    assert events[-1]["state_change"]["state"] == "SUCCEEDED"


async def test_watch_of_a_cancelled_generation_is_exit_code_1(wan22: Wan22Command) -> None:
    name = await queued(wan22, "a cat")
    cancelled = await wan22("generations", "cancel", name)
    assert (cancelled.exit_code, cancelled.err) == (0, "")
    assert name in cancelled.out
    watched = await wan22("generations", "watch", name)
    assert watched.exit_code == 1
    assert watched.err == f"Error: {name} was cancelled.\n"


async def test_delete_needs_force_while_unfinished(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    first, second = await queued(wan22, "a cat"), await queued(wan22, "a dog")
    refused = await wan22("generations", "delete", first, second)
    assert refused.exit_code == 1
    assert refused.err == f"Error: {first} is QUEUED: cancel it first, or use force.\n"

    deleted = await wan22("generations", "delete", "--force", first, second, "--json")
    assert deleted.json_lines() == [{"deleted": first}, {"deleted": second}]
    assert gateway.records == {}


async def test_download_fetches_the_video(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    name = await finished(wan22, gateway)
    result = await wan22("generations", "download", name, "-o", "cat.mp4", "--json")
    assert result.json() == {"path": "cat.mp4"}
    assert (wan22.folder / "cat.mp4").read_bytes() == VIDEO


async def test_download_of_damaged_bytes_is_exit_code_1_and_leaves_no_file(
    wan22: Wan22Command, gateway: MemoryGateway
) -> None:
    name = await finished(wan22, gateway)
    gateway.records[name].video = VIDEO[::-1]
    result = await wan22("generations", "download", name, "-o", "cat.mp4")
    assert result.exit_code == 1
    assert "download it again" in result.err
    assert not (wan22.folder / "cat.mp4").exists()


async def test_retry_repeats_variant_labels_and_parameters(wan22: Wan22Command, gateway: MemoryGateway) -> None:
    name = await finished(wan22, gateway)
    again = (await wan22("generations", "retry", name)).out.strip()
    first, second = gateway.records[name].generation, gateway.records[again].generation
    assert again != name
    assert second.parameters == first.parameters
    assert (second.variant, dict(second.labels)) == (TINY, {"team": "a"})
    assert second.state == Generation.QUEUED


async def test_retry_asks_for_the_texts_that_were_asked_for_before_others_took_their_place(
    wan22: Wan22Command, gateway: MemoryGateway
) -> None:
    name = await finished(wan22, gateway)
    gateway.records[name].generation.asked_texts.prompt = "what I said"
    again = gateway.records[(await wan22("generations", "retry", name)).out.strip()].generation
    assert (again.parameters.prompt, again.parameters.seed) == (
        "what I said",
        gateway.records[name].generation.parameters.seed,
    )
    assert not again.HasField("asked_texts")
    shown = (await wan22("generations", "get", name)).out
    assert "asked_prompt         what I said" in shown.splitlines()


async def test_variants_lists_what_is_served(wan22: Wan22Command) -> None:
    table, json = await asyncio.gather(wan22("variants"), wan22("variants", "--json"))
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == [
        variant["name"] for variant in json.json_lines()
    ]
    assert TINY in table.out
