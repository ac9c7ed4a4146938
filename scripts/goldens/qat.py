#!/usr/bin/env python3
"""Golden of one step of quantization-aware training, from PyTorch's fake quantization in float64, for
crates/penjing/tests/goldens/qat.safetensors.

usage: qat.py   (needs torch, numpy, safetensors; run from the root of the repository)

The network is described by penjing's own JSON of its nodes, kept in the metadata (`graph`); a node's `quant` is the grid of its
result, by torch.fake_quantize_per_tensor_affine from 0 to 255. Weights of layers whose input has a grid go through
torch.fake_quantize_per_channel_affine from -127 to 127 with scales of max|w|/127, computed in float32. Grids are a little
narrower than what is seen, so that some values are cut off.

Float32 rounds a value next to a tie the other way, and then everything behind it differs. So weights are drawn until no value, of
results or weights, is nearer to a tie than 2e-4 of a step; where values are cut off is half a step beyond the ends, and so a tie.
"""
import json
import sys

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, "scripts/goldens")
from train import FOLDER, Net, conv, cross_entropy, op_of, ACTS, write  # noqa: E402

MARGIN = 2e-4


def network():
    n = Net([2, 6, 6, 3])
    n.conv("stem", 6, 3, stride=2, padding=[0, 1, 0, 1], bias=True)
    stem = n.add("stem.act", {"act": "relu6"})
    n.conv("wide", 8, 1, bias=True)
    n.add("wide.act", {"act": "h_swish"})
    n.conv("depth", 8, 3, padding=[1] * 4, groups=8, bias=True)
    deep = n.add("depth.act", {"act": "relu"})
    n.add("squeeze", "global_avg_pool")
    n.add("reduce", {"linear": dict(out_features=4, bias=True)})
    n.add("reduce.act", {"act": "relu"})
    n.add("expand", {"linear": dict(out_features=8, bias=True)})
    gate = n.add("gate", {"act": "h_sigmoid"})
    n.add("excite", "mul", deep, gate)
    narrow = n.conv("narrow", 6, 1, bias=True)
    n.add("sum", "add", narrow, stem)
    n.conv("dense", 6, 3, padding=[1] * 4, groups=2, bias=True)
    n.add("pool", "global_avg_pool")
    n.add("head", {"linear": dict(out_features=4, bias=True)})
    return n.nodes


# A clamping activation alone behind a layer is one step with it; nothing rounds the logits.
FLOATS = ("stem", "depth", "reduce", "head")


class Margin:
    """The least distance of anything to where rounding jumps, in steps."""

    def __init__(self):
        self.least = 1.0

    def see(self, steps):
        steps = steps.detach()
        self.least = min(self.least, (steps - steps.floor() - 0.5).abs().min().item())


def fake_weight(w, margin):
    peak = w.detach().float().abs().flatten(1).max(1).values
    scales = (peak / np.float32(127)).float()
    shape = [-1] + [1] * (w.dim() - 1)
    margin.see(w / scales.double().view(shape))
    return torch.fake_quantize_per_channel_affine(
        w, scales, torch.zeros(len(scales), dtype=torch.int32), 0, -127, 127
    )


def forward(nodes, w, image, margin, grids=None):
    """Logits, and every result before it is rounded. Without `grids` nothing is rounded."""
    results, raw = [], []
    for node in nodes:
        x = [results[i] for i in node["inputs"]]
        kind, a = op_of(node)
        quant = grids and grids.get(node["name"])
        get = lambda suffix: w[f"{node['name']}.{suffix}"]
        weight = lambda: fake_weight(get("weight"), margin) if grids else get("weight")
        if kind == "input":
            y = image.permute(0, 3, 1, 2)
        elif kind == "conv":
            y = conv(x[0], a, weight(), get("bias"))
        elif kind == "linear":
            y = F.linear(x[0].flatten(1), weight(), get("bias"))[:, :, None, None]
        elif kind == "act":
            y = ACTS[a](x[0])
        elif kind == "add":
            y = x[0] + x[1]
        elif kind == "mul":
            y = x[0] * x[1]
        elif kind == "global_avg_pool":
            y = x[0].mean((2, 3), keepdim=True)
        raw.append(y)
        if quant:
            scale, zero = quant["scale"], quant["zero_point"]
            margin.see(y / scale)
            y = torch.fake_quantize_per_tensor_affine(y, scale, zero, 0, 255)
        results.append(y)
    return results[-1].flatten(1), raw


def grid(values):
    """Over nine tenths of what is seen, with zero on it."""
    low, high = min(0.0, 0.9 * values.min().item()), max(0.0, 0.9 * values.max().item())
    scale = float(np.float32((high - low) / 255))
    return {"scale": scale, "zero_point": int(np.clip(np.rint(-low / scale), 0, 255))}


def draw(nodes, seed):
    rng = np.random.default_rng(seed)
    weights, channels = {}, []
    for node in nodes:
        kind, a = op_of(node)
        c = channels[node["inputs"][0]] if node["inputs"] else 3
        if kind == "conv":
            k, i = a["kernel"][0], c // a["groups"]
            c = a["out_channels"]
            weights[f"{node['name']}.weight"] = rng.standard_normal((c, k, k, i)) * np.sqrt(2 / (k * k * i))
        elif kind == "linear":
            weights[f"{node['name']}.weight"] = rng.standard_normal((a["out_features"], c)) * np.sqrt(2 / c)
            c = a["out_features"]
        if kind in ("conv", "linear"):
            weights[f"{node['name']}.bias"] = 0.3 * rng.standard_normal(c)
        channels.append(c)
    image = rng.standard_normal((2, 6, 6, 3)).astype(np.float32)
    return {k: v.astype(np.float32) for k, v in weights.items()}, image, rng.dirichlet(np.ones(4), 2).astype(np.float32)


def main():
    nodes = network()
    for seed in range(10_000):
        weights, image, targets = draw(nodes, seed)
        w = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in weights.items()}
        x = torch.tensor(image, dtype=torch.float64)
        _, raw = forward(nodes, w, x, Margin())
        grids = {n["name"]: grid(y) for n, y in zip(nodes, raw) if n["name"] not in FLOATS}
        margin = Margin()
        logits, _ = forward(nodes, w, x, margin, grids)
        loss = cross_entropy(logits, torch.tensor(targets, dtype=torch.float64))
        loss.backward()
        if margin.least > MARGIN and all(v.grad.any() for v in w.values()):
            break
    else:
        sys.exit("every draw has a value next to a tie, or weights without a gradient")
    out = {f"weight.{k}": v for k, v in weights.items()} | {"input": image, "target": targets}
    out |= {"logits": logits.detach().numpy(), "loss": loss.detach().numpy().reshape(1)}
    out |= {f"grad.{k}": v.grad.numpy() for k, v in w.items()}
    for node in nodes:
        if node["name"] in grids:
            node["quant"] = grids[node["name"]]
    write("qat", out, nodes, {"seed": seed, "margin": margin.least})
    print(f"seed {seed}, {margin.least:.1e} of a step from a tie, loss {loss.item():.4f}")


main()
