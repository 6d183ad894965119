"""The golden data's toy autoencoder, read from a file of the original layout."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.models.vaes import load_vae
from tests.golden_data import golden_json
from tests.golden_weights import formula_weights

NET = golden_json("nets.json").get("vae")


def toy_vae(folder: Path) -> Any:
    """Write and read it; only where the golden data has one."""
    from diffusers import AutoencoderKL

    config = NET["config"]
    sides = len(config["ch_mult"])
    like = AutoencoderKL(
        block_out_channels=tuple(config["ch"] * factor for factor in config["ch_mult"]),
        down_block_types=("DownEncoderBlock2D",) * sides,
        up_block_types=("UpDecoderBlock2D",) * sides,
        layers_per_block=config["num_res_blocks"],
        latent_channels=config["z_channels"],
    )
    save_file(formula_weights(NET), folder / "toy.safetensors")
    return load_vae(folder / "toy.safetensors", like, torch.device("cpu"))
