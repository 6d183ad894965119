"""A tiny BLIP with random weights, as a folder of transformers, and a tiny tagger, as an ONNX file with its list."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipTextConfig,
    BlipVisionConfig,
    PreTrainedTokenizerFast,
)

from tests.tiny_segmenters import _number, _part, _text, _values

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "a", "picture", "of", "red", "blue", "star")
SIDE = 8
"""Pixels along each side of what the tagger sees."""
TAGS = "tag_id,name,category,count\n1,blue_sky,0,9\n2,star_(shape),0,9\n3,red_knight,4,9\n"


def write_captioner(folder: Path) -> Path:
    """Write a BLIP of a few thousand weights that knows the words above."""
    numbers = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(WordLevel(numbers, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    marks = [(mark, numbers[mark]) for mark in ("[CLS]", "[SEP]")]
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        additional_special_tokens=["[CLS]", "[SEP]", "[DEC]"],
    ).save_pretrained(folder)
    text = BlipTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        encoder_hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=96,
        bos_token_id=4,
        eos_token_id=3,
        sep_token_id=3,
        pad_token_id=0,
    )
    vision = BlipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BlipForConditionalGeneration(config).save_pretrained(folder)
    return folder


def write_tagger(path: Path, tags: Path) -> None:
    """Write a tagger whose three answers are the means of blue, green and red, and its list."""
    mean = (
        _text(1, "seen")
        + _text(2, "found")
        + _text(4, "ReduceMean")
        + _part(5, _text(1, "axes") + _number(8, 1) + _number(8, 2) + _number(20, 7))
        + _part(5, _text(1, "keepdims") + _number(3, 0) + _number(20, 2))
    )
    found = _text(1, "found") + _part(
        2, _part(1, _number(1, 1) + _part(2, _part(1, _number(1, 1)) + _part(1, _number(1, 3))))
    )
    graph = (
        _part(1, mean)
        + _text(2, "mean")
        + _part(11, _values("seen", (1, SIDE, SIDE, 3)))
        + _part(12, found)
    )
    opset = _text(1, "") + _number(2, 11)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_number(1, 8) + _part(7, graph) + _part(8, opset))
    tags.write_text(TAGS, encoding="utf-8")
