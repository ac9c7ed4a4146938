#!/usr/bin/env python3
"""Training of networks that came through ONNX, beside PyTorch's own from the same state: the losses of five steps of AdamW.

usage: onnx_step.py [NAME …] [--size 96]     (run from the repository's root after `cargo build --release`; needs torch, torchvision,
timm, onnx, onnxruntime and safetensors; NAME as in onnx_zoo.py, which tells how they begin)

Each network is exported by PyTorch with its BatchNorm kept, read by `penjing weights import`, and trained by the example
`train_step` under frozen statistics: 4 images, rates 1e-4 and for the closing linear layer 1e-3, decay 0.02 of weights, the
gradients' norm clipped to 1. PyTorch trains the network that was exported, in float64. Fails where the loss before or after
the first step is more than 1e-4 of itself away; later ones drift apart where rounding turns a gate of ReLU over.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

import onnx_zoo

NAMES = [
    "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet1_0", "resnet18", "efficientnet_lite0",
    "mobilenetv4_conv_small", "mobilenetv1_100",
]
BATCH, STEPS, LIMIT = 4, 5, 1e-4


def pytorch(net, batches):
    net = net.double()
    last = [module for module in net.modules() if isinstance(module, torch.nn.Linear)]
    head = {id(p) for p in last[-1].parameters()} if last else set()
    groups = [
        {"params": [p], "lr": 1e-3 if id(p) in head else 1e-4, "weight_decay": 0.02 if p.dim() > 1 else 0.0}
        for p in net.parameters()
    ]
    tuner = torch.optim.AdamW(groups)
    losses = []
    for x, y in batches:
        loss = F.cross_entropy(net(torch.from_numpy(x).double().permute(0, 3, 1, 2)), torch.from_numpy(y).double())
        tuner.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        tuner.step()
        losses.append(loss.item())
    return losses


def nodes_of(model):
    with open(model, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        nodes = json.loads(json.loads(file.read(length))["__metadata__"]["penjing"])["graph"]
    nodes[0]["op"]["input"]["shape"][0] = BATCH
    return nodes


def penjing(model, nodes, batches, folder):
    sys.path.insert(0, str(onnx_zoo.ROOT / "scripts/goldens"))
    import train

    weights = load_file(model)
    (folder / "graph.json").write_text(json.dumps(nodes))
    np.concatenate([weights[name].ravel() for name in train.parameters(nodes)]).astype("<f4").tofile(folder / "weights.f32")
    np.concatenate([x.ravel() for x, _ in batches]).astype("<f4").tofile(folder / "inputs.f32")
    np.concatenate([y.ravel() for _, y in batches]).astype("<f4").tofile(folder / "targets.f32")
    command = ["cargo", "run", "--quiet", "--release", "--package", "penjing", "--example", "train_step", "--"]
    done = subprocess.run(command + [folder, "frozen"], check=True, stdout=subprocess.PIPE, text=True)
    return [float(line) for line in done.stdout.split()]


parser = argparse.ArgumentParser()
parser.add_argument("names", nargs="*", default=NAMES)
parser.add_argument("--size", type=int, default=96)
args = parser.parse_args()
failed = False
print("| network | loss, step 1 to 5, PyTorch in float64 | difference, as a share of the loss |\n|---|---|---|")
for name in args.names:
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        net, _ = onnx_zoo.network(name)
        random = np.random.default_rng(1)
        batches = [(random.standard_normal((BATCH, args.size, args.size, 3), np.float32), np.zeros((BATCH, 1000), np.float32))
                   for _ in range(STEPS)]
        for step, (_, y) in enumerate(batches):
            y[np.arange(BATCH), np.arange(BATCH) + step] = 1
        kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        path = str(folder / "m.onnx")
        torch.onnx.export(net, torch.zeros(1, 3, args.size, args.size), path, dynamo=False, opset_version=17, **kept)
        binary = str(onnx_zoo.ROOT / "target/release/penjing")
        onnx_zoo.run(binary, "weights", "import", path, "-o", folder / "m.penjing")
        ours = penjing(str(folder / "m.penjing"), nodes_of(folder / "m.penjing"), batches, folder)
        theirs = pytorch(net, batches)
        away = [abs(a - b) / abs(b) for a, b in zip(ours, theirs)]
        failed |= not max(away[:2]) <= LIMIT
        print(f"| {name} | {' '.join(f'{loss:.4f}' for loss in theirs)} | {' '.join(f'{share:.0e}' for share in away)} |", flush=True)
sys.exit(failed)
