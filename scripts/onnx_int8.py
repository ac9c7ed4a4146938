#!/usr/bin/env python3
"""Models in 8 bits, as penjing writes them in ONNX, beside onnxruntime and OpenVINO: the same answers on identical tensors?

usage: onnx_int8.py PHOTOS MODEL…      (run from the repository's root)
(needs onnx, onnxruntime, numpy; compares with openvino too where that is installed; builds and runs penjing with cargo)

PHOTOS is a folder with photos somewhere below it, MODEL a model file. Each model is exported, onnx.checker looks at the file,
and each engine gets the tensors that penjing makes of the photos. A row tells on how many photos two have the same first class,
and how far their logits are apart, beside the spread of those; then come the operations that onnxruntime runs. The last row of
a model is onnxruntime beside itself when it optimizes nothing and computes every node of the file in floats: what rounding in
another way can do to this network. It fails where an engine and penjing have the same first class on fewer than 99 % of the
photos.
"""
import collections
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

try:
    import openvino
except ImportError:
    openvino = None

onnxruntime.set_default_logger_severity(3)
LEAST = 0.99
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def cargo(*args):
    command = ["cargo", "run", "--quiet", "--release", "--package", *map(str, args)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def by_onnxruntime(path, inputs, optimized=None):
    options = onnxruntime.SessionOptions()
    if optimized is None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": x[None]})[0] for x in inputs])


def by_openvino(path, inputs):
    # What is not in 8 bits it would take in half precision where the processor is fast at that.
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([model([x[None]])[0] for x in inputs])


def operations(path):
    """Of a model that onnxruntime has optimized: how often each stands in it, the most frequent first."""
    counts = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
    return ", ".join(f"{count} {op}" for op, count in counts.most_common())


def compare(photos, model, folder):
    """A row for each pair, whether all agree with penjing, and what onnxruntime runs."""
    path, optimized = folder / "model.onnx", folder / "optimized.onnx"
    cargo("penjing-cli", "--", "--quiet", "export", model, "--to", "onnx", "-o", path, "--force")
    onnx.checker.check_model(str(path), full_check=True)
    cargo("penjing", "--example", "logits", "--", model, folder, *photos)
    _, channels, height, width = [dim.dim_value for dim in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]
    inputs = np.fromfile(folder / "inputs.f32", "<f4").reshape(len(photos), height, width, channels)
    inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    ours = np.fromfile(folder / "logits.f32", "<f4").reshape(len(photos), -1)
    by_ort = by_onnxruntime(path, inputs, optimized)
    pairs = {"penjing, onnxruntime": (ours, by_ort)}
    if openvino is not None:
        pairs["penjing, openvino"] = (ours, by_openvino(path, inputs))
    pairs["onnxruntime, itself in floats"] = (by_onnxruntime(path, inputs), by_ort)
    agree = True
    for pair, (a, b) in pairs.items():
        same = int((a.argmax(1) == b.argmax(1)).sum())
        off = np.abs(a - b)
        agree &= a is not ours or same >= LEAST * len(photos)
        cells = [f"{same} of {len(photos)}", f"{off.max():.3f}", f"{off.mean():.4f}", f"{b.std():.2f}"]
        print(f"| {pathlib.Path(model).name} | {pair} | " + " | ".join(cells) + " |", flush=True)
    return agree, operations(optimized)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.split("\n\n")[1])
    below, *models = sys.argv[1:]
    photos = sorted(path for path in pathlib.Path(below).rglob("*") if path.suffix.lower() in ENDINGS)
    print("| model | beside each other | same first class | largest difference of a logit | mean difference | deviation of the logits |")
    print("|---|---|---|---|---|---|")
    found = {}
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            found[model] = compare(photos, model, pathlib.Path(folder))
    for model, (_, ran) in found.items():
        print(f"\nonnxruntime runs {pathlib.Path(model).name} as: {ran}.")
    differ = [model for model, (agree, _) in found.items() if not agree]
    if differ:
        sys.exit(f"fewer than {LEAST:.0%} of the photos have the same first class: {', '.join(differ)}")


if __name__ == "__main__":
    main()
