"""Where training begins: weights set so that an untrained part already passes its input through.

`silu(x) - silu(-x) = x`, so a pair of channels with opposite signs carries a value unharmed through
an activation; a pair of large constants beside it pins the scale that a group norm divides by.
Residual branches begin at zero. What training then has to learn is only the rest.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pocket.parts import Unet, Vae

PIN = 3.0
"""The constant that pins a group's scale; the larger, the less the carried value moves it."""


def zero_residuals(model: nn.Module) -> None:
    """Let every residual block, attention and transformer begin as the identity."""
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if last in {"conv2", "proj_out"} or name.endswith(("to_out.0", "ff.net.2")):
            for parameter in module.parameters(recurse=False):
                nn.init.zeros_(parameter)


def _carry(conv: Any, rows: dict[int, tuple[int, float]], *, taps: Tensor) -> None:
    """Set output channels of a convolution to copies of input channels: {out: (in, factor)}."""
    for out, (source, factor) in rows.items():
        conv.weight.data[out] = 0
        conv.weight.data[out, source] = factor * taps
        conv.bias.data[out] = 0


def _constants(conv: Any, rows: dict[int, float]) -> None:
    for out, value in rows.items():
        conv.weight.data[out] = 0
        conv.bias.data[out] = value


def _spread(channels: int, groups: int, count: int) -> list[int]:
    """First channel of a free run of four for each carried value, `count` runs over the groups."""
    per_group = channels // groups
    runs = [g * per_group + 4 * k for k in range(per_group // 4) for g in range(groups)]
    return sorted(runs[:count])


def _centre(size: int) -> Tensor:
    taps = torch.zeros(size, size)
    taps[size // 2, size // 2] = 1
    return taps


def _fan_out(conv: Any, bases: list[int], sources: list[int]) -> None:
    """Write each source channel as (+, -, +PIN, -PIN) at its base."""
    taps = _centre(conv.weight.shape[-1])
    _carry(conv, {b: (s, 1.0) for b, s in zip(bases, sources, strict=True)}, taps=taps)
    _carry(conv, {b + 1: (s, -1.0) for b, s in zip(bases, sources, strict=True)}, taps=taps)
    _constants(conv, {b + 2: PIN for b in bases} | {b + 3: -PIN for b in bases})


def _read_out(norm: Any, conv: Any, bases: list[int], *, power: float) -> None:
    """Read the carried values back behind norm and activation: out[k] = value k."""
    members = norm.num_channels // norm.num_groups
    others = (members - 4) * 0.1
    scale = float(((2 * power + 2 * PIN**2 + others) / members) ** 0.5)
    conv.weight.data[: len(bases)] = 0
    for row, base in enumerate(bases):
        norm.weight.data[base : base + 2] = scale
        conv.weight.data[row, base] = _centre(3)
        conv.weight.data[row, base + 1] = -_centre(3)
    conv.bias.data[: len(bases)] = 0


def start_vae(vae: Vae) -> None:
    """Let the latents begin as the mean colour of each 8x8 block, and the decoder as its reverse."""
    zero_residuals(vae)
    _start_encoder(vae)
    _start_decoder(vae)


def _start_encoder(vae: Vae) -> None:
    encoder, colours = vae.encoder, [0, 1, 2]
    mean = torch.zeros(3, 3)
    mean[:2, :2] = 0.25
    copy = {c: (c, 1.0) for c in colours}
    _carry(encoder.conv_in, copy, taps=_centre(3))
    bases = _spread(encoder.conv_norm_out.num_channels, encoder.conv_norm_out.num_groups, 3)
    last = len(encoder.down_blocks) - 1
    for index, block in enumerate(encoder.down_blocks):
        shortcut = block.resnets[0].conv_shortcut
        if index == last:
            _fan_out(shortcut, bases, colours)
        elif shortcut is not None:
            _carry(shortcut, copy, taps=torch.ones(1, 1))
        if block.downsamplers is not None:
            _carry(block.downsamplers[0].conv, copy, taps=mean)
    _read_out(encoder.conv_norm_out, encoder.conv_out, bases, power=0.6)
    encoder.conv_out.weight.data[4:] = 0
    encoder.conv_out.bias.data[4:] = -6
    vae.quant_conv.weight.data.copy_(torch.eye(8)[:, :, None, None])
    nn.init.zeros_(vae.quant_conv.bias)
    vae.post_quant_conv.weight.data.copy_(torch.eye(4)[:, :, None, None])
    nn.init.zeros_(vae.post_quant_conv.bias)


def _start_decoder(vae: Vae) -> None:
    decoder, copy = vae.decoder, {c: (c, 1.0) for c in range(3)}
    _carry(decoder.conv_in, copy, taps=_centre(3))
    bases = _spread(decoder.conv_norm_out.num_channels, decoder.conv_norm_out.num_groups, 3)
    last = len(decoder.up_blocks) - 1
    for index, block in enumerate(decoder.up_blocks):
        shortcut = block.resnets[0].conv_shortcut
        if index == last:
            _fan_out(shortcut, bases, [0, 1, 2])
        elif shortcut is not None:
            _carry(shortcut, copy, taps=torch.ones(1, 1))
        if block.upsamplers is not None:
            _carry(block.upsamplers[0].conv, copy, taps=_centre(3))
    _read_out(decoder.conv_norm_out, decoder.conv_out, bases, power=0.6)


def start_unet(unet: Unet) -> None:
    """Let the UNet begin by answering with its input, the best first guess of the noise."""
    zero_residuals(unet)
    latents = list(range(unet.config.in_channels))
    _carry(unet.conv_in, {c: (c, 1.0) for c in latents}, taps=_centre(3))
    norm = unet.conv_norm_out
    bases = _spread(norm.num_channels, norm.num_groups, len(latents))
    resnet = unet.up_blocks[-1].resnets[-1]
    hidden = resnet.in_channels - unet.conv_in.out_channels
    _fan_out(resnet.conv_shortcut, bases, [hidden + c for c in latents])
    nn.init.zeros_(unet.conv_out.weight)
    _read_out(norm, unet.conv_out, bases, power=1.0)


@torch.no_grad()
def whiten(vae: Vae, latents: Tensor, *, spread: float, noise: float) -> None:
    """Fold a rotation and scale into the 1x1 convolutions so that latents are white.

    Args:
        vae: Changed in place; what it reconstructs stays the same.
        latents: (N, 4, h, w) posterior means of many pictures.
        spread: Standard deviation that each latent channel has afterwards.
        noise: Standard deviation of the posterior afterwards, above 0.
    """
    flat = latents.double().permute(1, 0, 2, 3).flatten(1)
    mean = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    forward = vectors @ torch.diag(values.rsqrt() * spread) @ vectors.T
    backward = torch.linalg.inv(forward)
    quant, post = vae.quant_conv, vae.post_quant_conv
    rows = quant.weight.data[:4, :, 0, 0].double()
    bias = quant.bias.data[:4].double()
    quant.weight.data[:4, :, 0, 0] = (forward @ rows).float()
    quant.bias.data[:4] = (forward @ (bias - mean)).float()
    quant.weight.data[4:] = 0
    quant.bias.data[4:] = 2 * torch.log(torch.tensor(noise))
    undo = post.weight.data[:, :, 0, 0].double()
    post.bias.data += (undo @ mean).float()
    post.weight.data[:, :, 0, 0] = (undo @ backward).float()
