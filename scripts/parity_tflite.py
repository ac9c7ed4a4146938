#!/usr/bin/env python3
"""penjing beside LiteRT: a TensorFlow Lite classifier of ImageNet, on identical pixels and from the photos' files.

usage: parity_tflite.py PHOTOS FILE.tflite...     (run from the repository's root)
PHOTOS is a folder with one folder per ImageNet class (wnid) below it, and a classes.txt (index, wnid, name) beside it. The
files' classes are ImageNet's 1000, or these after one for the background. Needs ai-edge-litert, numpy and pillow; builds and
runs penjing with cargo, or takes the programs `penjing` and `examples/logits` in the folder PENJING_BIN.
"""
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image

photos = sorted(glob.glob(os.path.join(sys.argv[1], "*", "*")))
index = {}
for line in open(os.path.join(sys.argv[1], "..", "classes.txt")):
    number, wnid = line.split("\t")[:2]
    index[wnid] = int(number)
truth = np.array([index[os.path.basename(os.path.dirname(p))] for p in photos])
built = os.environ.get("PENJING_BIN")
cargo = ["cargo", "run", "--quiet", "--release", "--package"]
penjing = [f"{built}/penjing"] if built else cargo + ["penjing-cli", "--"]
logits_of = [f"{built}/examples/logits"] if built else cargo + ["penjing", "--example", "logits", "--"]


class Lite:
    """The file in LiteRT, for pixels as bytes; the result is the tensor before the softmax, as real numbers."""

    def __init__(self, path):
        self.net = Interpreter(path, experimental_preserve_all_tensors=True,
                               experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        self.net.allocate_tensors()
        self.taken, = self.net.get_input_details()
        self.size = int(self.taken["shape"][1])
        ops = self.net._get_ops_details()
        softmax = [op for op in ops if op["op_name"] == "SOFTMAX"]
        last = softmax[-1]["inputs"][0] if softmax else self.net.get_output_details()[0]["index"]
        self.given = next(t for t in self.net.get_tensor_details() if t["index"] == last)

    def __call__(self, pixels):
        rows = []
        for x in pixels:
            if self.taken["dtype"] == np.float32:
                x = (x.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
            elif self.taken["dtype"] == np.int8:
                x = (x.astype(np.int16) - 128).astype(np.int8)
            self.net.set_tensor(self.taken["index"], x[None])
            self.net.invoke()
            scale, zero_point = self.given["quantization"]
            y = self.net.get_tensor(self.given["index"]).reshape(-1)
            rows.append(y if scale == 0 else np.float32(scale) * (y.astype(np.float32) - zero_point))
        return np.stack(rows)


def python_path(size):
    """Pixels as Python makes them from the photo: short side at size / 0.875, the centre cut out, bilinear."""
    made = []
    for path in photos:
        photo = Image.open(path).convert("RGB")
        short = size * 8 // 7
        width, height = photo.size
        scaled = (short, short * height // width) if width <= height else (short * width // height, short)
        photo = photo.resize(scaled, Image.Resampling.BILINEAR)
        left, top = (round((side - size) / 2) for side in scaled)
        made.append(np.asarray(photo.crop((left, top, left + size, top + size))))
    return np.stack(made)


def top1(logits):
    classes = logits.argmax(1) - (logits.shape[1] - 1000)
    return float((classes == truth).mean() * 100)


with tempfile.TemporaryDirectory() as folder:
    for path in sys.argv[2:]:
        model, name = f"{folder}/model.penjing", os.path.basename(path)
        subprocess.run(penjing + ["--quiet", "weights", "import", path, "-o", model, "--force"], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run(logits_of + [model, folder] + photos, check=True)
        lite = Lite(path)
        pixels = np.fromfile(f"{folder}/pixels.u8", np.uint8).reshape(len(photos), lite.size, lite.size, 3)
        ours = np.fromfile(f"{folder}/logits.f32", "<f4").reshape(len(photos), -1)
        theirs = lite(pixels)
        same = float((ours.argmax(1) == theirs.argmax(1)).mean() * 100)
        print(f"{name}: {len(photos)} photos, identical pixels: largest |difference| of logits "
              f"{np.abs(ours - theirs).max():.2e} of {np.abs(theirs).max():.1f}, mean {np.abs(ours - theirs).mean():.2e}; "
              f"same top-1 on {same:.1f} %")
        reference = python_path(lite.size)
        off = np.abs(reference.astype(int) - pixels.astype(int))
        print(f"{name}: top-1 penjing {top1(ours):.1f} %, LiteRT on the same pixels {top1(theirs):.1f} %, LiteRT on "
              f"Pillow's pixels {top1(lite(reference)):.1f} %; of the input's bytes {100 * (off > 0).mean():.2f} % differ, "
              f"by {off.max()} at most")
