"""The pack: a safetensors file stored smaller, in aligned extents that decode one by one, and given back byte for byte.

The format is written down in docs/artifact-format.md. Needs the extra `pack`.
"""
