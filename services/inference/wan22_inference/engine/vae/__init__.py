"""The VAEs of WAN2.1 and WAN2.2: pixels to latents and back, a latent frame at a time."""
