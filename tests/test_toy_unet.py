"""The toy UNet loads into diffusers and computes what the original network computed."""

import pytest
import torch

from tests.golden_data import golden_arrays, golden_folder
from tests.toy_unet import load_toy_unet

pytestmark = pytest.mark.torch

FORWARDS = golden_arrays("unet_forward.npz")


@pytest.mark.skipif(not FORWARDS, reason="not in this set")
def test_forward_golden():
    unet = load_toy_unet(golden_folder())
    # The vectors hold the sizes embedded already (and at random), so they go in as they are.
    unet.add_time_proj = torch.nn.Identity()
    x, context, y, t, expected = (
        torch.tensor(FORWARDS[name]) for name in ("x", "ctx", "y", "t", "out")
    )
    for i in range(len(x)):
        added = {"text_embeds": y[i, :, :1280], "time_ids": y[i, :, 1280:]}
        with torch.no_grad():
            out = unet(x[i], t[i], context[i], added_cond_kwargs=added).sample
        torch.testing.assert_close(out, expected[i], rtol=0, atol=1e-5)
