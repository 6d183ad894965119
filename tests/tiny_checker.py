"""A safety checker at tiny size with random weights: the real classes, made to flag every picture or none."""

from pathlib import Path

SIDE = 28
ALL, NONE = -2.0, 2.0
"""Thresholds; a cosine lies between."""


def tiny_checker(threshold: float, *, special: float = NONE, seed: int = 0):
    """Build a checker whose concepts all have one threshold."""
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    torch.manual_seed(seed)
    vision = {
        "hidden_size": 128,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 14,
        "image_size": SIDE,
        "projection_dim": 24,
        "hidden_act": "quick_gelu",
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=24))
    with torch.no_grad():
        for embeds in (checker.concept_embeds, checker.special_care_embeds):
            embeds.normal_()
        checker.visual_projection.weight.normal_()
        checker.concept_embeds_weights.fill_(threshold)
        checker.special_care_embeds_weights.fill_(special)
    return checker.eval()


def old_names(checker):
    """Its weights as the published files name them."""
    return {
        key.replace("vision_model.", "vision_model.vision_model.", 1)
        if not key.startswith("vision_model.vision_model.")
        else key: value.contiguous()
        for key, value in checker.state_dict().items()
    }


def write_tiny_checker(path: Path, threshold: float) -> Path:
    """Write a file in the published layout."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(old_names(tiny_checker(threshold)), path)
    return path
