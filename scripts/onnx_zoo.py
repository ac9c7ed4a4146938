#!/usr/bin/env python3
"""Whole networks of torchvision and timm, through ONNX into penjing and out again, beside onnxruntime.

usage: onnx_zoo.py [--penjing BINARY] [--exporter script|dynamo|both] [NAME ...]
(needs torch, torchvision, timm, onnx, onnxscript, onnxruntime, numpy; compares with openvino too where that is installed)

Each network gets random weights and is exported by PyTorch; `penjing weights import` reads the file, `penjing export` writes
it again, with BatchNorm folded and kept, and with the preprocessing inside. onnx.checker looks at what penjing wrote, and
onnxruntime runs each file on the same images. A row tells the largest difference of a logit from the original's, as a share
of the largest logit; it fails above 1e-3.
"""

import argparse
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import torchvision

try:
    import openvino
except ImportError:
    openvino = None

warnings.filterwarnings("ignore")
onnxruntime.set_default_logger_severity(3)
ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 1e-3

TORCHVISION = [
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    "squeezenet1_0", "squeezenet1_1", "mnasnet1_0", "resnet18", "resnet50",
]
TIMM = [
    "efficientnet_lite0", "tf_efficientnet_lite0", "mobilenetv4_conv_small", "mobilenetv1_100", "lcnet_050",
    "ghostnet_100", "tf_mobilenetv3_small_100", "efficientnet_b0", "hardcorenas_a", "fbnetc_100", "regnety_002", "vgg11",
]


def network(name):
    torch.manual_seed(0)
    if name in TORCHVISION:
        net, size = torchvision.models.get_model(name, weights=None), 224
    else:
        net = timm.create_model(name, pretrained=False)
        size = net.pretrained_cfg["input_size"][-1]
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
    return net.eval(), size


def written_by_torch(net, size, exporter, path):
    x = torch.zeros(1, 3, size, size)
    if exporter == "dynamo":
        torch.onnx.export(net, (x,), path, dynamo=True, verbose=False, external_data=True)
    else:
        dynamic = {"input": {0: "batch"}}
        torch.onnx.export(net, (x,), path, dynamo=False, opset_version=17, input_names=["input"], dynamic_axes=dynamic)


def by_onnxruntime(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def by_openvino(path, x):
    # It would take half precision where the processor is fast at that.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(str(path), "CPU", exact)([x])[0]


def run(penjing, *args):
    done = subprocess.run([penjing, *map(str, args), "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def difference(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def row(penjing, name, exporter, folder):
    net, size = network(name)
    original = folder / "original.onnx"
    with torch.inference_mode():
        written_by_torch(net, size, exporter, str(original))
    model = folder / "m.penjing"
    imported = run(penjing, "weights", "import", original, "-o", model, "--force")
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    mean, std = (np.float32(imported["input"][key]) for key in ("mean", "std"))
    x = ((pixels.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2).copy()
    one = exporter == "dynamo"
    theirs = np.concatenate([by_onnxruntime(original, x[i : i + 1]) for i in range(2)]) if one else by_onnxruntime(original, x)
    found = []
    for flags in [["--dynamic-batch"], ["--dynamic-batch", "--keep-batch-norm"], ["--dynamic-batch", "--with-preprocessing"]]:
        out = folder / "out.onnx"
        run(penjing, "export", model, "--to", "onnx", "-o", out, "--force", *flags)
        onnx.checker.check_model(str(out), full_check=True)
        given = pixels if "--with-preprocessing" in flags else x
        found.append(difference(by_onnxruntime(out, given), theirs))
        if openvino is not None:
            found.append(difference(by_openvino(out, given), theirs))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--penjing", default=str(ROOT / "target/release/penjing"))
    parser.add_argument("--exporter", choices=["script", "dynamo", "both"], default="both")
    parser.add_argument("names", nargs="*", metavar="NAME")
    args = parser.parse_args()
    exporters = ["script", "dynamo"] if args.exporter == "both" else [args.exporter]
    columns = ["onnxruntime", "openvino"] if openvino is not None else ["onnxruntime"]
    heads = [f"{what}, {column}" for what in ("folded", "BatchNorm kept", "bytes in") for column in columns]
    print("| network | exporter | " + " | ".join(heads) + " |")
    print("|---" * (2 + len(heads)) + "|")
    failed = 0
    for name in args.names or TORCHVISION + TIMM:
        for exporter in exporters:
            with tempfile.TemporaryDirectory() as folder:
                # The exporters talk on stdout.
                talk, sys.stdout = sys.stdout, io.StringIO()
                try:
                    found = row(args.penjing, name, exporter, pathlib.Path(folder))
                    failed += max(found) > LIMIT
                    cells = [f"{value:.1e}" for value in found]
                except Exception as error:
                    failed += 1
                    cells = [f"FAILED: {error}".replace("\n", " ")[:300]]
                finally:
                    sys.stdout = talk
            print(f"| {name} | {exporter} | " + " | ".join(cells) + " |", flush=True)
    if failed:
        sys.exit(f"{failed} networks differ or could not be compared")


if __name__ == "__main__":
    main()
