#!/usr/bin/env python3
"""Golden logits of the tiny model of format version 1, from PyTorch: reads the model file on its own, as safetensors and
JSON, and runs the graph that stands in it.

usage: v1_model.py [MODEL [OUT]]        (needs torch, numpy, safetensors)
OUT has one line for each input, made from the seeds 1 and 2: its logits.
"""
import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open

GOLDENS = "crates/penjing-runtime/tests/goldens"
MODEL = sys.argv[1] if len(sys.argv) > 1 else f"{GOLDENS}/v1.penjing"
OUT = sys.argv[2] if len(sys.argv) > 2 else f"{GOLDENS}/v1_logits.csv"


def noise(seed, shape):
    """Values -1..1 from SplitMix64, in the order of the shape."""
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    values = (z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1.0
    return torch.from_numpy(values.reshape(shape))


def run(kind, p, inputs, weight):
    """One operation on maps `[N,C,H,W]`."""
    x = inputs[0]
    pad = lambda t, value=0.0: F.pad(t, (p["padding"][2], p["padding"][3], p["padding"][0], p["padding"][1]), value=value)
    if kind == "conv":
        w = weight("weight").permute(0, 3, 1, 2)
        bias = weight("bias") if p["bias"] else None
        return F.conv2d(pad(x), w, bias, p["stride"], 0, p["dilation"], p["groups"])
    if kind == "batch_norm":
        return F.batch_norm(x, weight("mean"), weight("var"), weight("gamma"), weight("beta"), eps=p["eps"])
    if kind == "act":
        if isinstance(p, dict):
            return F.leaky_relu(x, p["leaky_relu"])
        return {
            "none": lambda t: t, "relu": F.relu, "relu6": F.relu6, "h_swish": F.hardswish,
            "h_sigmoid": F.hardsigmoid, "sigmoid": torch.sigmoid, "silu": F.silu,
        }[p](x)
    if kind == "slice":
        return x[:, p["start"]:p["start"] + p["len"]]
    if kind == "channel_shuffle":
        return F.channel_shuffle(x, p["groups"])
    if kind == "pad":
        return pad(x)
    if kind == "max_pool":
        assert p["padding"] == [p["padding"][0]] * 4
        return F.max_pool2d(x, p["kernel"], p["stride"], p["padding"][0], ceil_mode=p["ceil_mode"])
    if kind == "avg_pool":
        # Padding that differs from side to side and counts for nothing: sums and counts of zero-padded maps.
        assert not p["count_include_pad"]
        p = window = p["window"]
        assert window["ceil_mode"]
        total = lambda t: F.avg_pool2d(pad(t), window["kernel"], window["stride"], ceil_mode=True, divisor_override=1)
        return total(x) / total(torch.ones_like(x))
    if kind == "linear":
        y = F.linear(x.flatten(1), weight("weight"), weight("bias") if p["bias"] else None)
        return y[:, :, None, None]
    return {
        "add": lambda: x + inputs[1],
        "mul": lambda: x * inputs[1],
        "concat": lambda: torch.cat(inputs, 1),
        "global_avg_pool": lambda: x.mean((2, 3), keepdim=True),
        "flatten": lambda: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 1, 1),
        "softmax": lambda: torch.softmax(x, 1),
        "dropout": lambda: x,
    }[kind]()


def logits(seed):
    with safe_open(MODEL, "pt") as file:
        document = json.loads(file.metadata()["penjing"])
        assert document["format"] == 1
        values = []
        for node in document["graph"]:
            kind, p = next(iter(node["op"].items())) if isinstance(node["op"], dict) else (node["op"], None)
            inputs = [values[i] for i in node["inputs"]]
            if kind == "input":
                values.append(noise(seed, p["shape"]).permute(0, 3, 1, 2))
                continue
            values.append(run(kind, p, inputs, lambda suffix: file.get_tensor(f"{node['name']}.{suffix}").double()))
        return values[-1].flatten()


with open(OUT, "w") as out:
    for seed in (1, 2):
        out.write(",".join(f"{value:.9g}" for value in logits(seed).tolist()) + "\n")
