#!/usr/bin/env python3
"""Training from scratch with PyTorch on the embedded photos of Fashion-MNIST: the yardstick of `penjing train --recipe
scratch`, with the same networks, first weights, steps and augmentation.

usage: scratch.py [--part val|test] [--size PX] [--epochs N] [--seeds N] [--write DATA] [NET...]
(run from the repository's root; needs torch, torchvision, timm; NET is mobilenet_v1_x0.25, mobilenet_v2_x0.5,
mobilenet_v3_small or shufflenet_v2_x0.5)

penjing's side, the 1,000 photos to learn from as DATA/train, the first 20 test photos of each class as DATA/val, the other
800 as DATA/test (`--write DATA` makes the folders; the whole photo is seen in the test, hence `squash`; the choice between
the last weights and their average, which DATA/val is for, is penjing's own):

    penjing train DATA --recipe scratch --backbone NET --gray --size 64 --fit squash --epochs 40 --seed N -o m.penjing

Prints top-1 on those 800 test photos for every seed, and the median. `--part val` learns from the first 80 photos of each
class and tests on the other 20 (one standard error is about 3 points). Medians there:

                        32 px, 40 epochs    64 px, 40    32 px, 120    64 px, 120
    mobilenet_v1_x0.25            75.0 %      72.5 %        80.0 %        82.5 %    three seeds
    mobilenet_v2_x0.5             75.5 %      82.0 %        81.8 %        83.5 %    three, three, two, one

Hence 64 px; 120 epochs are better and three times as slow.

The steps: AdamW at 2e-3 with decay 0.05 on weights of convolutions and the linear layer, none on biases and normalizations;
batches of 32, the short last one dropped; the rate rises over the first 10 % of the steps, then falls by a cosine to 1 %;
label smoothing 0.1, gradients clipped to norm 1; crops of 70 to 100 % of the area, mirrored half the time. Statistics of
the normalizations follow with momentum 0.1. Tested on the whole photo.
"""
import argparse
import gzip
import math
import pathlib
import resource
import statistics
import time

import numpy as np
import timm.models.efficientnet
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import v2 as T

EXAMPLE = pathlib.Path("examples/fashion-mnist")
CLASSES, PER_CLASS, BATCH = 10, 100, 32
RATE, LAST_RATE, WARM_UP, DECAY, SMOOTHING, CLIP = 2e-3, 0.01, 0.1, 0.05, 0.1, 1.0
# What one gray value, 0..1, is normalized with: penjing's contracts for gray photos.
IMAGENET = (0.449, 0.226)
NETS = {
    "mobilenet_v1_x0.25": (0.5, 0.5),
    "mobilenet_v2_x0.5": (0.485, 0.229),
    "mobilenet_v3_small": IMAGENET,
    "shufflenet_v2_x0.5": IMAGENET,
}


def network(name):
    if name == "mobilenet_v1_x0.25":
        return timm.models.efficientnet._gen_mobilenet_v1(
            "mobilenetv1_100", 0.25, num_classes=CLASSES, in_chans=1, pad_type="same", bn_eps=1e-3, drop_rate=0.001)
    if name == "shufflenet_v2_x0.5":
        net = torchvision.models.shufflenet_v2_x0_5(num_classes=CLASSES)
        stem = net.conv1
    else:
        v2 = name == "mobilenet_v2_x0.5"
        of = lambda: torchvision.models.mobilenet_v2(width_mult=0.5, num_classes=CLASSES)
        net = of() if v2 else torchvision.models.mobilenet_v3_small(num_classes=CLASSES)
        stem = net.features[0]
    stem[0] = nn.Conv2d(1, stem[0].out_channels, 3, 2, 1, bias=False)
    return net


def begin(net):
    """He normal by the fan-out of a group; N(0, 0.01) for the linear layer; normalizations are the identity."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[:, 0].numel() // module.groups
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1


def photos(split):
    """Gray photos sorted by class, and their labels."""
    images = np.frombuffer(gzip.decompress((EXAMPLE / f"{split}-images.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((EXAMPLE / f"{split}-labels.gz").read_bytes()), np.uint8, offset=8)
    return [Image.fromarray(image) for image in images.reshape(-1, 28, 28)], torch.tensor(labels.tolist())


def parts(part):
    """The photos that teach, and those that do not: of the test photos those of penjing's choice, then the others."""
    learn, test = photos("train"), photos("test")
    place = torch.arange(CLASSES * PER_CLASS) % PER_CLASS
    take = lambda photos, wanted: ([photos[0][i] for i in wanted.nonzero().flatten()], photos[1][wanted])
    if part == "test":
        return learn, take(test, place < 20), take(test, place >= 20)
    return take(learn, place < 80), take(learn, place >= 80)


def write(folder):
    for part, (images, labels) in zip(["train", "val", "test"], parts("test")):
        for number, (image, label) in enumerate(zip(images, labels.tolist())):
            path = folder / part / str(label) / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def run(name, size, epochs, seed, learn, held_out):
    torch.manual_seed(seed)
    finish = [T.ToImage(), T.ToDtype(torch.float32, scale=True), T.Normalize(*([value] for value in NETS[name]))]
    augment = T.Compose([T.RandomResizedCrop(size, scale=(0.7, 1)), T.RandomHorizontalFlip(), *finish])
    see = T.Compose([T.Resize(size), *finish])
    net = network(name).to(memory_format=torch.channels_last)
    begin(net)
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": weights}, {"params": others, "weight_decay": 0}], RATE, weight_decay=DECAY)
    images, labels = learn
    steps = epochs * (len(labels) // BATCH)
    warm_up = math.ceil(steps * WARM_UP)

    def factor(step):
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / (steps - warm_up)
        return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    began = time.time()
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(BATCH):
            if len(batch) < BATCH:
                continue
            x = torch.stack([augment(images[i]) for i in batch]).contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(net(x), labels[batch], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimizer.step()
            schedule.step()
    seconds = time.time() - began
    net.eval()
    with torch.inference_mode():
        x = torch.stack([see(image) for image in held_out[0]])
        right = sum((net(xs).argmax(1) == ys).sum().item() for xs, ys in zip(x.split(100), held_out[1].split(100)))
    return right / len(held_out[1]), seconds


parser = argparse.ArgumentParser()
parser.add_argument("--part", choices=["val", "test"], default="test")
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--write", type=pathlib.Path, metavar="DATA", help="make the folders of penjing's side, and no more")
parser.add_argument("nets", nargs="*", default=list(NETS))
args = parser.parse_args()
if args.write:
    write(args.write)
    raise SystemExit
learn, *_, held_out = parts(args.part)
for name in args.nets:
    top1s = []
    for seed in range(args.seeds):
        top1, seconds = run(name, args.size, args.epochs, seed, learn, held_out)
        top1s.append(top1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{name} {args.size} px {args.epochs} epochs seed {seed}: {args.part} top-1 {100 * top1:.2f} %, {seconds:.1f} s, "
              f"peak {peak} MB so far", flush=True)
    print(f"{name} {args.size} px {args.epochs} epochs: median {100 * statistics.median(top1s):.2f} %", flush=True)
