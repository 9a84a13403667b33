"""The signatures that docs/images.md tells of, by the tools that it names."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wan22_testing.images.archive import Image
from wan22_testing.oci_registry import PROGRAM, OciRegistryProcess

pytestmark = pytest.mark.skipif(
    shutil.which("skopeo") is None or shutil.which("gpg") is None, reason="skopeo or gpg is not on PATH"
)
NAME = "registry.example/wan22/gateway:1.2.3"


class Signer:
    """A key, and what it signs with."""

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "GNUPGHOME": str(folder)}
        self._run(
            "gpg", "--batch", "--passphrase", "", "--quick-generate-key", "somebody@example.com", "ed25519", "sign"
        )
        listed = self._run("gpg", "--list-keys", "--with-colons").stdout
        self.fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def skopeo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What it prints, and whether it succeeds."""
        command = ["skopeo", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, env=self._environment)

    def write_public_key(self, path: Path) -> None:
        self._run("gpg", "--output", str(path), "--export", self.fingerprint)

    def stop(self) -> None:
        self._run("gpgconf", "--kill", "all")

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self._environment)


@pytest.fixture(scope="module")
def signer() -> Iterator[Signer]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # its agent's socket needs a short path
        signer = Signer(Path(folder))
        yield signer
        signer.stop()


def test_a_signed_manifest_is_verified_and_another_one_or_another_name_is_refused(
    image: Image, signer: Signer, tmp_path: Path
) -> None:
    manifest, signature = tmp_path / "image" / "manifest.json", str(tmp_path / "signature")
    source = f"oci-archive:{image.archive}"
    assert signer.skopeo("copy", "--preserve-digests", source, f"dir:{manifest.parent}").returncode == 0
    signed = signer.skopeo("standalone-sign", str(manifest), NAME, signer.fingerprint, "--output", signature)
    assert signed.returncode == 0, signed.stderr

    verified = signer.skopeo("standalone-verify", str(manifest), NAME, signer.fingerprint, signature)
    assert verified.stdout.strip() == f"Signature verified, digest {image.digest}"
    other_name = NAME.replace("gateway", "registry")
    other = signer.skopeo("standalone-verify", str(manifest), other_name, signer.fingerprint, signature)
    assert other.returncode != 0
    assert f"does not match {other_name}" in other.stderr
    manifest.write_text(manifest.read_text().replace('"size"', ' "size"'))
    changed = signer.skopeo("standalone-verify", str(manifest), NAME, signer.fingerprint, signature)
    assert changed.returncode != 0
    assert f"{image.digest}" in changed.stderr


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not on PATH")
async def test_a_policy_lets_signed_images_be_pulled_alone(image: Image, signer: Signer, tmp_path: Path) -> None:
    async with OciRegistryProcess(tmp_path / "registry") as registry:
        places = tmp_path / "registries.d"
        places.mkdir()
        lookaside = f"file://{tmp_path}/signatures"
        (places / "wan22.yaml").write_text(json.dumps({"docker": {registry.host: {"lookaside": lookaside}}}))
        signer.write_public_key(tmp_path / "key.gpg")
        wanted = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(tmp_path / "key.gpg")}
        policy = {"default": [{"type": "reject"}], "transports": {"docker": {registry.host: [wanted]}}}
        (tmp_path / "policy.json").write_text(json.dumps(policy))
        push = ("--registries.d", str(places), "copy", "--preserve-digests", "--dest-tls-verify=false")
        source, signed, bare = (
            f"oci-archive:{image.archive}",
            f"docker://{registry.host}/wan22/signed:1",
            f"docker://{registry.host}/wan22/bare:1",
        )
        assert signer.skopeo(*push, "--sign-by", signer.fingerprint, source, signed).returncode == 0
        assert signer.skopeo(*push, source, bare).returncode == 0

        pull = ("--registries.d", str(places), "--policy", str(tmp_path / "policy.json"), "copy")
        taken = signer.skopeo(*pull, "--src-tls-verify=false", signed, f"dir:{tmp_path}/taken")
        assert taken.returncode == 0, taken.stderr
        refused = signer.skopeo(*pull, "--src-tls-verify=false", bare, f"dir:{tmp_path}/refused")
        assert refused.returncode != 0
        assert "A signature was required, but no signature exists" in refused.stderr
