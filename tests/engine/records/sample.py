"""A record with everything in it."""

from engine.geometry import Size
from engine.prompt.styles import Style
from engine.records.names import resolver
from engine.records.record import Record

RESOLVE = resolver(
    {
        "checkpoint": ["pocket", "photo/base_v1.0.safetensors", "fine.safetensors"],
        "lora": ["film.safetensors", "sub/Glow.safetensors"],
        "vae": ["sharp.safetensors"],
    }
)
_TEXTS = {
    "Plain": ("soft light", "harsh glare"),
    "Wrap": ("a view of {prompt} in ink\n{prompt}, etched", "photo, blurry"),
    "Part": ("light", ""),
    "Only Negative": ("", "watermark"),
    "Nothing": ("", ""),
}
STYLES = {
    name: Style(name=name, prompt=prompt, negative_prompt=negative)
    for name, (prompt, negative) in _TEXTS.items()
}


def full_record() -> Record:
    return Record(
        prompt='a cat, "sitting": 日本\nsecond line',
        negative_prompt="rain",
        expansion='a cat, "sitting": 日本, masterful',
        styles=("Fooocus V2", "Plain", "Wrap"),
        performance="Quality",
        steps=41,
        size=Size(896, 1152),
        guidance_scale=5.5,
        sharpness=3.0,
        adm=(1.4, 0.9, 0.25),
        base_model="photo/base_v1.0.safetensors",
        refiner_model="fine.safetensors",
        refiner_switch=0.667,
        overwrite_switch=12,
        refiner_swap_method="separate",
        adaptive_cfg=5.0,
        clip_skip=1,
        sampler="dpmpp_sde",
        scheduler="karras",
        vae="sharp.safetensors",
        seed=2**62 + 1,
        freeu=(1.1, 1.2, 0.9, 0.8),
        loras=(("sub/Glow.safetensors", -0.25), ("film.safetensors", 0.7)),
        full_prompt=(
            "soft light",
            'a view of a cat, "sitting": 日本 in ink',
            'a cat, "sitting": 日本, etched',
            "second line",
            'a cat, "sitting": 日本, masterful',
        ),
        full_negative_prompt=("harsh glare", "photo, blurry", "rain"),
        hashes={"photo/base_v1.0.safetensors": "0123456789"},
        metadata_scheme="a1111",
        created_by="me, myself",
        version="Pochade 1",
    )


FIELDS = {
    "prompt": 'a cat, "sitting": 日本\nsecond line',
    "negative_prompt": "rain",
    "styles": ("Fooocus V2", "Plain", "Wrap"),
    "performance": "Quality",
    "guidance_scale": 5.5,
    "sharpness": 3.0,
    "aspect_ratio": "896x1152",
    "num_images": 1,
    "loras": [
        {"path": "sub/Glow.safetensors", "scale": -0.25},
        {"path": "film.safetensors", "scale": 0.7},
    ],
    "refiner_model": "fine.safetensors",
    "refiner_switch": 0.667,
    "seed": 2**62 + 1,
    "advanced": {
        "base_model": "photo/base_v1.0.safetensors",
        "vae": "sharp.safetensors",
        "refiner_swap_method": "separate",
        "refiner_switch_step": 12,
        "sampler": "dpmpp_sde",
        "scheduler": "karras",
        "adaptive_cfg": 5.0,
        "adm_scaler_positive": 1.4,
        "adm_scaler_negative": 0.9,
        "adm_scaler_end": 0.25,
        "clip_skip": 1,
        "num_inference_steps": 41,
        "freeu": {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.8},
    },
}
"""What the record's request was."""
