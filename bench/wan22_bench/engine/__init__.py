"""The engine on one card: forwards, decoders and whole generations, beside diffusers at its best."""
