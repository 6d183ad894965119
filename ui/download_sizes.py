"""How large the files are that can be fetched, about, so that a person knows before asking for one.

As their publishers list them; a file that is not here says its size when it comes.
"""

from collections.abc import Mapping

_MB = 1_000_000

SIZES: Mapping[str, int] = {
    name: round(megabytes * _MB)
    for name, megabytes in {
        "ip-adapter-plus_sdxl_vit-h.safetensors": 848,
        "ip-adapter-plus-face_sdxl_vit-h.safetensors": 848,
        "clip_vision_vit_h.safetensors": 1972,
        "fooocus_ip_negative.safetensors": 0.066,
        "detection_Resnet50_Final.pth": 109,
        "control-lora-canny-rank128.safetensors": 396,
        "fooocus_xl_cpds_128.safetensors": 396,
        "controlnet-union-sdxl-promax.safetensors": 2513,
        "fooocus_upscaler_s409985e5.bin": 33.6,
        "fooocus_inpaint_head.pth": 0.053,
        "inpaint.fooocus.patch": 1320,
        "inpaint_v25.fooocus.patch": 2580,
        "inpaint_v26.fooocus.patch": 1323,
        "u2net.onnx": 176,
        "u2netp.onnx": 4.6,
        "u2net_human_seg.onnx": 176,
        "u2net_cloth_seg.onnx": 176,
        "silueta.onnx": 44,
        "isnet-general-use.onnx": 179,
        "isnet-anime.onnx": 176,
        "blip-image-captioning-large": 1880,
        "wd-v1-4-moat-tagger-v2.onnx": 326,
        "wd-v1-4-moat-tagger-v2.csv": 0.25,
        "sam-vit-base": 375,
        "sam-vit-large": 1250,
        "sdxl_lcm_lora.safetensors": 394,
        "sdxl_lightning_4step_lora.safetensors": 394,
        "sdxl_hyper_sd_4step_lora.safetensors": 787,
    }.items()
}
"""Bytes by file name."""
