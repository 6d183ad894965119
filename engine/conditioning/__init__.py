"""What a UNet is told besides the noisy latents: texts, sizes, and later image prompts and controls."""
