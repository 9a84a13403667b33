from wan22_testing.memory_gateway_servicer import MemoryGateway
from wan22_testing.wan22_command import Wan22Command


async def test_usage_shows_limits_and_each_day_with_its_videos_and_bytes(
    wan22: Wan22Command, gateway: MemoryGateway
) -> None:
    for number in range(2):
        result = await wan22("generate", f"cat {number}", "--variant", "t2v-a14b-tiny", "--detach")
        await gateway.succeed(result.out.strip(), b"an MP4" * 1000)
    lines = (await wan22("usage")).out.splitlines()
    assert lines[:2] == ["tenants/default, weight 1", "queued 0 of any, running 0 of any"]
    assert lines[3] == "images 0 B of any"
    assert lines[4].split() == ["DAY", "VARIANT", "ENDED", "SUCCEEDED", "REUSED", "GPU-SECONDS", "VIDEOS", "BYTES"]
    assert lines[5].split() == ["1970-01-01", "t2v-a14b-tiny", "2", "2", "0", "2", "2", "12", "kB"]
    (day,) = (await wan22("usage", "--json")).json()["usage"]
    assert (day["videos"], day["video_bytes"]) == (2, "12000")
