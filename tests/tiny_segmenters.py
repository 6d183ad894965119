"""A tiny GroundingDINO and a tiny SAM with random weights, as folders of transformers, and a tiny ONNX network."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    PreTrainedTokenizerFast,
    SamConfig,
    SamModel,
    SwinConfig,
)

WORDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "red": 1, "star": 2}
"""With BERT's numbers for the marks, which a GroundingDINO goes by."""
SAM_SIDE = 64


def write_detector(folder: Path) -> Path:
    """Write a GroundingDINO of a few thousand weights that knows the words above."""
    words = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    words.pre_tokenizer = Sequence([WhitespaceSplit(), Split(".", "isolated")])
    marks = [(mark, WORDS[mark]) for mark in ("[CLS]", "[SEP]")]
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    text = BertConfig(
        vocab_size=1 + max(WORDS.values()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    backbone = SwinConfig(
        window_size=7,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        out_indices=[2, 3, 4],
    )
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=12,
        max_text_len=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GroundingDinoForObjectDetection(config).save_pretrained(folder)
    return folder


def write_sam(folder: Path) -> Path:
    """Write a SAM of a few thousand weights that sees squares of 64 pixels."""
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": SAM_SIDE,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [0],
        "num_pos_feats": 8,
        "mlp_dim": 16,
    }
    prompt = {"hidden_size": 16, "image_embedding_size": 4, "image_size": SAM_SIDE}
    prompt |= {"patch_size": 16, "mask_input_channels": 4}
    decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder |= {"iou_head_hidden_dim": 16, "attention_downsample_rate": 2}
    config = SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        SamModel(config).save_pretrained(folder)
    return folder


def write_onnx(path: Path, side: int) -> Path:
    """Write an ONNX network that answers with the mean of the colours, in the bytes of its format."""
    mean = (
        _text(1, "seen")
        + _text(2, "found")
        + _text(4, "ReduceMean")
        + _part(5, _text(1, "axes") + _number(8, 1) + _number(20, 7))
        + _part(5, _text(1, "keepdims") + _number(3, 1) + _number(20, 2))
    )
    graph = (
        _part(1, mean)
        + _text(2, "mean")
        + _part(11, _values("seen", (1, 3, side, side)))
        + _part(12, _values("found", (1, 1, side, side)))
    )
    opset = _text(1, "") + _number(2, 11)
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, opset))
    return path


def _values(name: str, shape: tuple[int, ...]) -> bytes:
    """Describe a tensor of float32."""
    sides = b"".join(_part(1, _number(1, side)) for side in shape)
    return _text(1, name) + _part(2, _part(1, _number(1, 1) + _part(2, sides)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _part(field, value.encode())


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
