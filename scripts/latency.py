#!/usr/bin/env python3
"""Batch-1 latency of penjing beside ONNX Runtime, interleaved in one run: medians, spread and ratio.

usage: latency.py [ROUNDS]      (run from the repository's root; needs torch, torchvision, onnx, onnxruntime and
efficientnet-lite-pytorch; weights are random, for timing only; `cargo xtask bench` sets this up)
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
PENJING = "target/release/penjing"
NETS = {
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(),
    "efficientnet_lite0": lambda: EfficientNet.from_name("efficientnet-lite0"),
}


def penjing(name, threads):
    args = [PENJING, "--json", "bench", "--arch", name, "--threads", str(threads), "--seconds", "0.5"]
    return json.loads(subprocess.run(args, check=True, capture_output=True).stdout)["latency_ms"]["p50"]


def ort(session):
    x = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
    times = []
    stop = time.perf_counter() + 0.55
    while time.perf_counter() < stop:
        start = time.perf_counter()
        session.run(None, {"x": x})
        times.append(time.perf_counter() - start)
    return statistics.median(times[len(times) // 10 :]) * 1e3


def row(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


print(f"ONNX Runtime {onnxruntime.__version__}, f32, 224 px, batch 1, {ROUNDS} interleaved rounds; "
      f"ms, median of the rounds' medians (least–greatest); load {os.getloadavg()[0]:.1f}\n")
print("| network | threads | penjing | ONNX Runtime | penjing ÷ ONNX Runtime |\n|---|---|---|---|---|")
with tempfile.TemporaryDirectory() as folder:
    for name, build in NETS.items():
        path = f"{folder}/{name}.onnx"
        torch.onnx.export(build().eval(), torch.rand(1, 3, 224, 224), path, input_names=["x"], dynamo=False, opset_version=17)
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(penjing(name, threads))
                # A session of its own each round: its idle threads must not spin while penjing is timed.
                session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
                theirs.append(ort(session))
                del session
            ratio = statistics.median(a / b for a, b in zip(ours, theirs))
            print(f"| {name} | {threads} | {row(ours)} | {row(theirs)} | {ratio:.2f} |", flush=True)
