"""Prompts to token ids, by the tokenizer.json of a model."""
