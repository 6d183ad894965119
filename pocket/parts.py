"""The sizes of the model's parts: stock diffusers and transformers classes, small numbers.

Everything here is SDXL's structure: two text encoders whose penultimate states are joined, a pooled
vector from the second, `text_time` conditioning, a 4-channel autoencoder that divides sides by 8.
Knows nothing of training.
"""

from typing import Any

import diffusers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

library: Any = diffusers
"""diffusers, whose lazily exported classes are opaque to a type checker."""

Vae = Any
Unet = Any
Preview = Any
Scheduler = Any
Pipeline = Any

LATENT_FACTOR = 8
"""Pixels to a latent cell, along each side."""

SCALING_FACTOR = 0.13025
"""What latents are multiplied by; the autoencoder is whitened so that SDXL's own number fits."""

TOKENS = 77
"""Tokens that a text encoder reads, start and end included."""

TEXT_WIDTHS = (64, 96)
"""Hidden widths of the two text encoders; the UNet attends to both, joined."""

POOLED_WIDTH = 96
TIME_ID_WIDTH = 32


def make_vae() -> Vae:
    """A random autoencoder of the pocket size."""
    return library.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 24, 48, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=128,
        scaling_factor=SCALING_FACTOR,
        force_upcast=False,
    )


def make_preview() -> Preview:
    """A random preview decoder: 4 pixels to a latent cell. Its encoder half is a stub nobody uses."""
    return library.AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4),
        decoder_block_out_channels=(12, 12, 12),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
        upsampling_scaling_factor=2,
        latent_magnitude=3,
        scaling_factor=1.0,
    )


def make_unet() -> Unet:
    """A random UNet of the pocket size."""
    return library.UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 128),
        layers_per_block=2,
        norm_num_groups=8,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 3, 4),
        use_linear_projection=True,
        cross_attention_dim=sum(TEXT_WIDTHS),
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * TIME_ID_WIDTH,
        resnet_time_scale_shift="scale_shift",
    )


def make_scheduler() -> Scheduler:
    """SDXL's noise schedule."""
    return library.EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        timestep_spacing="leading",
        steps_offset=1,
    )


def _text_config(width: int, *, layers: int, vocab: int, start: int, end: int) -> CLIPTextConfig:
    settings: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "max_position_embeddings": TOKENS,
        "projection_dim": POOLED_WIDTH,
        "hidden_act": "gelu",
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    return CLIPTextConfig(**settings)


def make_text_encoders(
    vocab: int, *, start: int, end: int
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Two random text encoders for a vocabulary of `vocab` tokens."""
    small = _text_config(TEXT_WIDTHS[0], layers=3, vocab=vocab, start=start, end=end)
    large = _text_config(TEXT_WIDTHS[1], layers=4, vocab=vocab, start=start, end=end)
    return CLIPTextModel(small), CLIPTextModelWithProjection(large)
