#!/usr/bin/env python3
"""Golden gradients and losses of training, from PyTorch in float64, for crates/penjing/tests/goldens/train_*.safetensors.

usage: train.py [every_op] [lite0] [lite0_silu]   (needs torch, numpy, safetensors; run from the root of the repository)

Makes the named goldens, or all; each replaces its file.

Each network is described by penjing's own JSON of its graph's nodes, kept in the metadata (`graph`), and computed here
by reading that JSON. Keys start with the BatchNorm mode: `batch.` (batch statistics) or `frozen.` (running ones).
Dropout is the identity. `info` in the metadata holds, for each mode, PyTorch float32's own relative error of each
parameter's gradient (the norm taken to be 1e-4 where it is less), and of Lite0 the ten losses of each optimizer in both
precisions.

Lite0's float32 is run four times: once as it is, then from weights that are moved by one unit in the last place or not
at all; the error is the largest. With ReLU6 one gate that rounding turns over changes gradients by 1e-3, so one run
alone says little of what another order of sums may do. With SiLU in ReLU6's place (`lite0_silu`) there are no gates.


Projections: the r-th (of 32) for the parameter at place i of the graph's parameters (running statistics counted) is the
sum over its values of sign·gradient, in the order in which they are stored; the signs are the top bits (1 is minus) of
SplitMix64's successive outputs for seed i·32 + r.
Lite0's input for step s, NHWC: a grid [8,12,12,3] of SplitMix64's outputs for seed 100 + s, (u >> 40)/2^23 − 1, each
cell repeated over 8×8 pixels; the label of image k is (3·k + s) mod 10, smoothed by 0.1. The gradients are of step 0.
Every optimizer step: the norm of all gradients clipped to 1; decay on weights only. AdamW: rates 1e-4 and, for
`classifier`, 1e-3, decay 0.02, betas 0.9 and 0.999, eps 1e-8. SGD: rate 0.01, Nesterov momentum 0.9, decay 5e-5.
"""
import json
import struct
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

FOLDER = "crates/penjing/tests/goldens"
MODEL = "crates/penjing-weights/efficientnet_lite0.penjing"
PROJECTIONS = 32
FLOAT32_RUNS = 4
# Errors are relative to at least this norm: a bias before BatchNorm has no gradient but rounding.
FLOOR = 1e-4


def split_mix(seed, count):
    """SplitMix64's outputs, as numpy uint64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def parameters(nodes):
    """Names in penjing's order."""
    names = []
    for node in nodes:
        kind, args = op_of(node)
        if kind == "batch_norm":
            names += [f"{node['name']}.{s}" for s in ("gamma", "beta", "mean", "var")]
        elif kind in ("conv", "linear"):
            names += [f"{node['name']}.{s}" for s in ["weight"] + ["bias"] * args["bias"]]
    return names


def op_of(node):
    op = node["op"]
    return (op, None) if isinstance(op, str) else next(iter(op.items()))


def depthwise(x, w, stride, dilation):
    """A sum over taps: PyTorch's own is very slow in float64."""
    (kh, kw), (sh, sw), (dh, dw) = w.shape[2:], stride, dilation
    h = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    v = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    total = 0
    for i in range(kh):
        for j in range(kw):
            part = x[:, :, i * dh : i * dh + (h - 1) * sh + 1 : sh, j * dw : j * dw + (v - 1) * sw + 1 : sw]
            total = total + part * w[:, 0, i, j][None, :, None, None]
    return total


def conv(x, c, weight, bias):
    w = weight.permute(0, 3, 1, 2)
    top, bottom, left, right = c["padding"]
    x = F.pad(x, (left, right, top, bottom))
    if x.dtype == torch.float64 and c["groups"] == x.shape[1] == c["out_channels"]:
        y = depthwise(x, w, c["stride"], c["dilation"])
        return y if bias is None else y + bias[None, :, None, None]
    return F.conv2d(x, w, bias, c["stride"], 0, c["dilation"], c["groups"])


def pool(c):
    top, bottom, left, right = c["padding"]
    assert (top, left) == (bottom, right), "PyTorch pads pools evenly"
    return dict(kernel_size=c["kernel"], stride=c["stride"], padding=(top, left), ceil_mode=c["ceil_mode"])


ACTS = {
    "none": lambda x: x, "relu": F.relu, "relu6": F.relu6, "h_swish": F.hardswish, "h_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid, "silu": F.silu,
}


def forward(nodes, w, image, batch_statistics):
    """Logits for an NHWC image; running statistics in `w` are updated where the batch's are used."""
    results = []
    for node in nodes:
        x = [results[i] for i in node["inputs"]]
        kind, a = op_of(node)
        get = lambda suffix: w.get(f"{node['name']}.{suffix}")
        if kind == "input":
            y = image.permute(0, 3, 1, 2)
        elif kind == "conv":
            y = conv(x[0], a, get("weight"), get("bias"))
        elif kind == "batch_norm":
            y = F.batch_norm(x[0], get("mean"), get("var"), get("gamma"), get("beta"), batch_statistics, 0.1, a["eps"])
        elif kind == "act":
            y = F.leaky_relu(x[0], a["leaky_relu"]) if isinstance(a, dict) else ACTS[a](x[0])
        elif kind == "add":
            y = x[0] + x[1]
        elif kind == "mul":
            y = x[0] * x[1]
        elif kind == "concat":
            y = torch.cat(x, 1)
        elif kind == "slice":
            y = x[0][:, a["start"] : a["start"] + a["len"]]
        elif kind == "channel_shuffle":
            y = F.channel_shuffle(x[0], a["groups"])
        elif kind == "pad":
            top, bottom, left, right = a["padding"]
            y = F.pad(x[0], (left, right, top, bottom))
        elif kind == "max_pool":
            y = F.max_pool2d(x[0], **pool(a))
        elif kind == "avg_pool":
            y = F.avg_pool2d(x[0], **pool(a["window"]), count_include_pad=a["count_include_pad"])
        elif kind == "global_avg_pool":
            y = x[0].mean((2, 3), keepdim=True)
        elif kind == "flatten":
            y = x[0].permute(0, 2, 3, 1).flatten(1)[:, :, None, None]
        elif kind == "linear":
            y = F.linear(x[0].flatten(1), get("weight"), get("bias"))[:, :, None, None]
        elif kind == "softmax":
            y = x[0].softmax(1)
        elif kind == "dropout":
            y = x[0]
        else:
            sys.exit(f"unknown operation {kind}")
        results.append(y)
    return results[-1].flatten(1)


def learnt(name):
    return not name.endswith((".mean", ".var"))


def tensors(weights, dtype):
    return {n: torch.tensor(v, dtype=dtype).requires_grad_(learnt(n)) for n, v in weights.items()}


def cross_entropy(logits, targets):
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def step(nodes, weights, image, targets, batch_statistics, dtype):
    w = tensors(weights, dtype)
    x = torch.tensor(image, dtype=dtype, requires_grad=True)
    logits = forward(nodes, w, x, batch_statistics)
    loss = cross_entropy(logits, torch.tensor(targets, dtype=dtype))
    loss.backward()
    return w, x, logits, loss


def relative(a, b):
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm().clamp(min=FLOOR)).item()


class Net:
    """Writes nodes one after another."""

    def __init__(self, shape):
        self.nodes = [{"name": "image", "op": {"input": {"shape": shape}}, "inputs": []}]

    def add(self, name, op, *inputs):
        self.nodes.append({"name": name, "op": op, "inputs": list(inputs) or [len(self.nodes) - 1]})
        return len(self.nodes) - 1

    def conv(self, name, out, k, stride=1, padding=(0, 0, 0, 0), dilation=1, groups=1, bias=False):
        return self.add(name, {"conv": dict(out_channels=out, kernel=[k, k], stride=[stride] * 2, padding=list(padding),
                                            dilation=[dilation] * 2, groups=groups, bias=bias)})

    def bn_act(self, name, act):
        self.add(f"{name}.bn", {"batch_norm": {"eps": float(np.float32(1e-3))}})
        return self.add(f"{name}.act", {"act": act})


def every_op():
    n = Net([4, 24, 24, 3])
    window = lambda k, s, p, ceil=False: dict(kernel=[k, k], stride=[s, s], padding=[p] * 4, ceil_mode=ceil)
    n.conv("dense", 12, 3, padding=[1] * 4, bias=True)
    n.bn_act("dense", "relu")
    n.conv("strided", 12, 3, stride=2, padding=[0, 1, 1, 0])
    n.bn_act("strided", "relu6")
    n.conv("dw3", 12, 3, padding=[1] * 4, groups=12)
    a = n.bn_act("dw3", "silu")
    n.conv("dw5", 12, 5, padding=[2] * 4, groups=12)
    b = n.bn_act("dw5", "h_swish")
    n.add("sum", "add", a, b)
    n.conv("pointwise", 16, 1)
    c = n.bn_act("pointwise", "relu6")
    n.add("squeeze", "global_avg_pool")
    n.add("reduce", {"linear": dict(out_features=4, bias=True)})
    n.add("reduce.act", {"act": "relu"})
    n.add("expand", {"linear": dict(out_features=16, bias=True)})
    d = n.add("gate", {"act": "h_sigmoid"})
    n.add("excite", "mul", c, d)
    n.conv("dw3s2", 16, 3, stride=2, padding=[0, 1, 0, 1], groups=16)
    n.bn_act("dw3s2", {"leaky_relu": 0.125})
    n.conv("grouped", 16, 3, padding=[1] * 4, groups=4)
    n.bn_act("grouped", "silu")
    s = n.add("shuffle", {"channel_shuffle": {"groups": 4}})
    right = n.add("right", {"slice": {"start": 7, "len": 8}}, s)
    left = n.add("left", {"slice": {"start": 0, "len": 8}}, s)
    n.conv("dilated", 8, 3, padding=[2] * 4, dilation=2, bias=True)
    e = n.add("dilated.act", {"act": "sigmoid"})
    m = n.add("product", "mul", e, right)
    n.add("joined", "concat", m, right, left)
    n.add("padded", {"pad": {"padding": [1, 0, 0, 1]}})
    n.add("max_ceil", {"max_pool": window(2, 2, 0, True)})
    p = n.add("max", {"max_pool": window(3, 1, 1)})
    q = n.add("avg_pad", {"avg_pool": {"window": window(3, 1, 1), "count_include_pad": True}}, p)
    r = n.add("avg", {"avg_pool": {"window": window(3, 1, 1), "count_include_pad": False}}, p)
    n.add("pools", "concat", q, r)
    t = n.conv("mix", 16, 1)
    u = n.add("softmax", "softmax")
    n.add("sharpened", "add", t, u)
    n.conv("dw5s2", 16, 5, stride=2, padding=[2] * 4, groups=16)
    n.bn_act("dw5s2", "relu")
    n.add("flat", "flatten")
    n.add("hidden", {"linear": dict(out_features=12, bias=False)})
    n.add("dropout", {"dropout": {"rate": 0.0}})
    n.add("classifier", {"linear": dict(out_features=5, bias=True)})

    rng = np.random.default_rng(7)
    weights, channels = {}, []
    for node in n.nodes:
        kind, a = op_of(node)
        source = [channels[i] for i in node["inputs"]]
        c = source[0] if source else 3
        name = node["name"]
        normal = lambda *shape: rng.standard_normal(shape)
        if kind == "conv":
            k, i = a["kernel"][0], c // a["groups"]
            weights[f"{name}.weight"] = normal(a["out_channels"], k, k, i) * np.sqrt(2 / (k * k * i))
            c = a["out_channels"]
        elif kind == "linear":
            weights[f"{name}.weight"] = normal(a["out_features"], c) * np.sqrt(2 / c)
            c = a["out_features"]
        elif kind == "batch_norm":
            weights[f"{name}.gamma"] = 1 + 0.2 * normal(c)
            weights[f"{name}.beta"] = 0.3 * normal(c)
            weights[f"{name}.mean"] = 0.2 * normal(c)
            weights[f"{name}.var"] = 0.5 + rng.random(c)
        elif kind == "concat":
            c = sum(source)
        elif kind == "slice":
            c = a["len"]
        elif kind == "flatten":
            c *= 4
        if kind in ("conv", "linear") and a["bias"]:
            weights[f"{name}.bias"] = 0.3 * normal(c)
        channels.append(c)
    weights = {k: v.astype(np.float32) for k, v in weights.items()}
    assert set(weights) == set(parameters(n.nodes))
    image = rng.standard_normal((4, 24, 24, 3)).astype(np.float32)
    targets = rng.dirichlet(np.ones(5), 4).astype(np.float32)

    out = {f"weight.{k}": v for k, v in weights.items()} | {"input": image, "target": targets}
    info = {}
    for mode in ("batch", "frozen"):
        w, x, logits, loss = step(n.nodes, weights, image, targets, mode == "batch", torch.float64)
        w32, x32, _, loss32 = step(n.nodes, weights, image, targets, mode == "batch", torch.float32)
        errors = {k: relative(w32[k].grad, w[k].grad) for k in w if learnt(k)}
        info[mode] = {"loss32": loss32.item(), "input_error": relative(x32.grad, x.grad), "errors": errors}
        out[f"{mode}.logits"], out[f"{mode}.loss"] = logits.detach().numpy(), loss.detach().numpy().reshape(1)
        out[f"{mode}.grad_input"] = x.grad.numpy()
        for k in w:
            if learnt(k):
                out[f"{mode}.grad.{k}"] = w[k].grad.numpy()
            elif mode == "batch":
                out[f"batch.updated.{k}"] = w[k].numpy()
    write("train_every_op", out, n.nodes, info)
    return info


def write(name, out, nodes, info):
    out = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in out.items()}
    # Compact JSON, as serde writes it.
    dump = lambda value: json.dumps(value, separators=(",", ":"))
    save_file(out, f"{FOLDER}/{name}.safetensors", {"graph": dump(nodes), "info": dump(info), "torch": torch.__version__})


def read_model(path):
    """A model's nodes and weights."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    nodes = json.loads(header.pop("__metadata__")["penjing"])["graph"]
    types = {"F16": np.float16, "F32": np.float32}
    weights = {}
    for name, t in header.items():
        values = np.frombuffer(data[slice(*t["data_offsets"])], types[t["dtype"]])
        weights[name] = values.astype(np.float32).reshape(t["shape"])
    return nodes, weights


def batch_of(s, size=96):
    """Images and targets of step s."""
    g = size // 8
    cells = (split_mix(100 + s, 8 * g * g * 3) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)
    image = cells.reshape(8, g, g, 3).repeat(8, 1).repeat(8, 2)
    targets = np.full((8, 10), 0.01)
    targets[np.arange(8), (3 * np.arange(8) + s) % 10] += 0.9
    return image, targets


def nudged(weights, run):
    """Every weight moved by one unit in the last place, up or down, or not at all; none in run 0."""
    rng = np.random.default_rng(run)
    move = lambda v: np.nextafter(v, v + rng.integers(-1, 2, v.shape).astype(np.float32))
    return {k: move(v) for k, v in weights.items()} if run else weights


def losses(nodes, weights, batch_statistics, optimizer, dtype, batches):
    w = tensors(weights, dtype)
    rate = lambda k: 0.01 if optimizer == "sgd" else 1e-3 if k.startswith("classifier.") else 1e-4
    decay = lambda k: (5e-5 if optimizer == "sgd" else 0.02) if k.endswith(".weight") else 0.0
    groups = [{"params": [v], "lr": rate(k), "weight_decay": decay(k)} for k, v in w.items() if learnt(k)]
    kinds = {"sgd": lambda g: torch.optim.SGD(g, 0.01, momentum=0.9, nesterov=True), "adamw": torch.optim.AdamW}
    tuner = kinds[optimizer](groups)
    out = []
    for image, targets in batches:
        logits = forward(nodes, w, torch.tensor(image, dtype=dtype), batch_statistics)
        loss = cross_entropy(logits, torch.tensor(targets, dtype=dtype))
        tuner.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([v for k, v in w.items() if learnt(k)], 1.0)
        tuner.step()
        out.append(loss.item())
    return out


def to_train(path, shape, act=None):
    """A model's nodes and weights for an input of this shape, with a fresh head of 10 classes and without dropout;
    `act` stands in ReLU6's place."""
    nodes, weights = read_model(path)
    nodes[0]["op"]["input"]["shape"] = shape
    for node in nodes:
        if "dropout" in node["op"]:
            node["op"]["dropout"]["rate"] = 0.0
        if act and node["op"] == {"act": "relu6"}:
            node["op"] = {"act": act}
    nodes[-1]["op"]["linear"]["out_features"] = 10
    head = nodes[-1]["name"]
    features = weights[f"{head}.weight"].shape[1]
    rng = np.random.default_rng(11)
    weights[f"{head}.weight"] = (rng.standard_normal((10, features)) * 0.03).astype(np.float32)
    weights[f"{head}.bias"] = (rng.standard_normal(10) * 0.03).astype(np.float32)
    return nodes, weights


def lite0(name="train_lite0", act=None):
    nodes, weights = to_train(MODEL, [8, 96, 96, 3], act)
    names = parameters(nodes)
    assert set(names) == set(weights)
    out = {k: weights[k] for k in ("classifier.weight", "classifier.bias")}
    info = {}
    batches = [batch_of(s) for s in range(10)]
    for mode in ("batch", "frozen"):
        batch = mode == "batch"
        w, _, logits, loss = step(nodes, weights, *batches[0], batch, torch.float64)
        runs = [nudged(weights, run) for run in range(FLOAT32_RUNS)]
        in32 = [step(nodes, run, *batches[0], batch, torch.float32)[0] for run in runs]
        errors = {}
        for i, k in enumerate(names):
            if learnt(k):
                g = w[k].grad.numpy().ravel()
                errors[k] = max(relative(run[k].grad, w[k].grad) for run in in32)
                minus = [split_mix(i * PROJECTIONS + r, g.size) >> np.uint64(63) for r in range(PROJECTIONS)]
                out[f"{mode}.norm.{k}"] = np.linalg.norm(g).reshape(1)
                out[f"{mode}.projections.{k}"] = np.array([g @ (1.0 - 2.0 * m.astype(np.float64)) for m in minus])
        out[f"{mode}.logits"] = logits.detach().numpy()
        info[mode] = {"loss": loss.item(), "errors": errors}
        for optimizer in ("adamw", "sgd"):
            info[mode][f"{optimizer}64"] = losses(nodes, weights, batch, optimizer, torch.float64, batches)
            info[mode][f"{optimizer}32"] = [losses(nodes, run, batch, optimizer, torch.float32, batches) for run in runs]
    write(name, out, nodes, info)
    return info


if __name__ == "__main__":
    makers = {"every_op": every_op, "lite0": lite0, "lite0_silu": lambda: lite0("train_lite0_silu", "silu")}
    for make in [makers[name] for name in sys.argv[1:]] or makers.values():
        for mode, values in make().items():
            errors = values.pop("errors")
            print(mode, "largest error of float32:", max(errors.values()), values, flush=True)
