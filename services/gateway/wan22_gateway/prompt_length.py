"""Prompt lengths in tokens, checked at Create with the tokenizer of the pool's own model version."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from wan22.digests import Sha256
from wan22.durable_files import replace_file
from wan22.errors import DataLoss, FailedPrecondition, Reason
from wan22.model_client import ModelClient
from wan22.tls import Tls
from wan22.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer, open_tokenizer
from wan22.variants import MAX_PROMPT_TOKENS

log = logging.getLogger(__name__)
REMEMBERED_COUNTS = 256
"""Texts of at most 10,000 characters."""


class PromptLengths:
    """Keeps one tokenizer a model version, on disk so that a restart needs no registry."""

    def __init__(self, folder: Path, registry: str, tls: Tls | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._registry = registry
        self._tls = tls
        self._loaded: dict[str, Tokenizer] = {}
        self._by_digest: dict[str, Tokenizer] = {}
        """Of its file: the variants of WAN2.2 have one and the same, a quarter of a GB in memory."""
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = asyncio.Lock()

    async def prepare(self, model_version: str) -> None:
        """Fetches the version's tokenizer if it is not here yet.

        Raises the registry's error (NotFound, Unavailable …), DataLoss when the bytes are not those of the digest, or
        FailedPrecondition (MODEL_MISFIT) when the version has no tokenizer, or one that cannot be read.
        """
        await self._tokenizer(model_version)

    async def too_long(self, model_version: str, texts: dict[str, str]) -> dict[str, int]:
        """The tokens, end token counted, of each text (by field) that has more than 512."""
        tokenizer = self._loaded.get(model_version) or await self._tokenizer(model_version)
        counts = {field: await self._count(model_version, tokenizer, text) for field, text in texts.items()}
        return {field: count for field, count in counts.items() if count > MAX_PROMPT_TOKENS}

    async def _count(self, model_version: str, tokenizer: Tokenizer, text: str) -> int:
        """Texts come again: everybody's default negative prompt, and prompts with other seeds."""
        key = (model_version, text)
        count = self._counts.pop(key, None)
        if count is None:
            ids = await asyncio.to_thread(tokenizer.ids, text) if tokenizer.waits else tokenizer.ids(text)
            count = len(ids)
        self._counts[key] = count  # as the last one used
        if len(self._counts) > REMEMBERED_COUNTS:
            del self._counts[next(iter(self._counts))]
        return count

    async def _tokenizer(self, model_version: str) -> Tokenizer:
        async with self._lock:
            if model_version not in self._loaded:
                path = self._folder / (model_version.rpartition(":")[2] + ".json")
                if not path.exists():
                    await self._fetch(model_version, path)
                self._loaded[model_version] = await asyncio.to_thread(self._open, path)
            return self._loaded[model_version]

    def _open(self, path: Path) -> Tokenizer:
        digest = str(Sha256(path.read_bytes()))
        if digest not in self._by_digest:
            tokenizer = open_tokenizer(path)
            _ = tokenizer.last_token  # waits for it
            self._by_digest[digest] = tokenizer
        return self._by_digest[digest]

    async def _fetch(self, model_version: str, path: Path) -> None:
        async with ModelClient(self._registry, self._tls) as models:
            version = await models.get_version(model_version)
            file = next((file for file in version.files if file.path == TOKENIZER_FILE), None)
            if file is None:
                text = f"{model_version} has no {TOKENIZER_FILE}: import the model again from a complete folder."
                raise FailedPrecondition(text, reason=Reason.MODEL_MISFIT)
            data = b"".join([chunk async for chunk in models.read_blob(file.digest)])
        actual = str(Sha256(data))
        if actual != file.digest:
            text = f"{file.path} of {model_version} has digest {actual}, not {file.digest}: verify the registry."
            raise DataLoss(text, reason=Reason.DIGEST_MISMATCH)
        await asyncio.to_thread(replace_file, path, data)
        log.info("Fetched the tokenizer of %s.", model_version)
