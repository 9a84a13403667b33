"""LoRA adapters: small weights, in one of several styles of files, that one generation adds to a DiT's."""
