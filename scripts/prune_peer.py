#!/usr/bin/env python3
"""Half of a network's arithmetic taken away by penjing and by Torch-Pruning: the same weights, criterion, share and epochs after.

usage: prune_peer.py MODEL DATA NET [--share 0.5] [--criterion l2] [--epochs 9]     (run from the repository's root after
`cargo build --release`; needs torch, torchvision, torch-pruning, onnx, onnxruntime, numpy, safetensors)

MODEL is a classifier that penjing has fine-tuned from NET, mobilenet_v2 of torchvision or efficientnet_lite0 of
efficientnet-lite-pytorch; DATA has train/ and test/ with a folder for each class. Torch-Pruning prunes with its group norm, in
channels of multiples of 8, isomorphic global ranking as its examples do for MobileNet, until so much of the arithmetic is gone, and PyTorch then
learns as penjing does: AdamW at 3e-4 warmed up and falling by a cosine, batches of 16, crops of 70 to 100 %, the network before
as teacher (nine tenths of the loss, temperature 4), statistics of BatchNorm estimated again and then frozen.
Prints top-1 on the test photos before and after, multiply-accumulates, and milliseconds of a photo on one thread, median of 7
interleaved rounds: penjing's networks run by penjing, PyTorch's by ONNX Runtime.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
import torch_pruning
import torchvision
from PIL import Image
from safetensors.numpy import load_file
from torch import nn
from torchvision import transforms as T

PENJING = "target/release/penjing"
BATCH, RATE, TEMPERATURE, SHARE = 16, 3e-4, 4.0, 0.9


def run(*words):
    return subprocess.run([PENJING, *map(str, words)], check=True, stdout=subprocess.PIPE).stdout


def network(name, classes):
    if name == "mobilenet_v2":
        return torchvision.models.mobilenet_v2(num_classes=classes)
    from efficientnet_lite_pytorch import EfficientNet
    net = EfficientNet.from_name("efficientnet-lite0")
    net._fc = nn.Linear(net._fc.in_features, classes)
    return net


def fill(net, model):
    """Layer by layer, in the order in which they run: the two networks are the same."""
    tensors = load_file(model)
    names = [node["name"] for node in json.loads(metadata(model))["graph"] if node["name"] + ".weight" in tensors or node["name"] + ".gamma" in tensors]
    layers = []
    hooks = [
        module.register_forward_hook(lambda module, *_: layers.append(module))
        for module in net.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))
    ]
    net.eval()(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    assert len(layers) == len(names), f"{len(layers)} layers, the model has {len(names)}"
    value = lambda name: torch.from_numpy(tensors[name].astype(np.float32))
    with torch.no_grad():
        for layer, name in zip(layers, names):
            if isinstance(layer, nn.BatchNorm2d):
                for own, theirs in [("weight", "gamma"), ("bias", "beta"), ("running_mean", "mean"), ("running_var", "var")]:
                    getattr(layer, own).copy_(value(f"{name}.{theirs}"))
                continue
            weight = value(f"{name}.weight")
            layer.weight.copy_(weight.permute(0, 3, 1, 2) if weight.ndim == 4 else weight)
            if layer.bias is not None:
                layer.bias.copy_(value(f"{name}.bias"))


def metadata(model):
    with open(model, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header["__metadata__"]["penjing"]


def macs(net):
    return torch_pruning.utils.count_ops_and_params(net, torch.zeros(1, 3, 224, 224))[0]


def prune(net, share, criterion):
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2 if criterion == "l2" else 1)
    head = [module for module in net.modules() if isinstance(module, nn.Linear)]
    whole, step = macs(net), 40
    pruner = torch_pruning.pruner.BasePruner(
        net, torch.zeros(1, 3, 224, 224), importance, global_pruning=True, isomorphic=True, pruning_ratio=0.9, max_pruning_ratio=0.9,
        iterative_steps=step, round_to=8, ignored_layers=head)
    for _ in range(step):
        pruner.step()
        if macs(net) <= (1 - share) * whole:
            break
    return macs(net) / whole


def estimate(net, photos):
    """BatchNorm's statistics anew: the cumulative mean over the photos."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    net.train()
    with torch.no_grad():
        for images, _ in photos:
            net(images)
    net.eval()


def learn(net, teacher, photos, epochs):
    net.eval()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0)
    steps, step = epochs * len(photos), 0
    for _ in range(epochs):
        for images, labels in photos:
            rate = min(1, (step + 1) / (0.1 * steps))
            if step > 0.1 * steps:
                rate = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step / steps - 0.1) / 0.9))
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate
            with torch.no_grad():
                soft = F.softmax(teacher(images) / TEMPERATURE, 1)
            logits = net(images)
            kd = F.kl_div(F.log_softmax(logits / TEMPERATURE, 1), soft, reduction="batchmean") * TEMPERATURE**2
            loss = SHARE * kd + (1 - SHARE) * F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            step += 1


def top1(net, photos):
    net.eval()
    with torch.inference_mode():
        right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in photos)
    return 100 * right / len(photos.dataset)


def exported(net, path):
    torch.onnx.export(net.eval(), torch.zeros(1, 3, 224, 224), path, input_names=["x"], dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = np.zeros((1, 3, 224, 224), np.float32)

    def milliseconds():
        start = time.perf_counter()
        for _ in range(20):
            session.run(None, {"x": image})
        return 50 * (time.perf_counter() - start)

    return milliseconds


def of_penjing(model):
    def milliseconds():
        return json.loads(run("bench", model, "--threads", 1, "--seconds", 0.3, "--json"))["latency_ms"]["p50"]

    return milliseconds


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model")
    arguments.add_argument("data", type=pathlib.Path)
    arguments.add_argument("net", choices=["mobilenet_v2", "efficientnet_lite0"])
    arguments.add_argument("--share", type=float, default=0.5)
    arguments.add_argument("--criterion", choices=["l1", "l2"], default="l2")
    arguments.add_argument("--epochs", type=int, default=9)
    a = arguments.parse_args()
    torch.manual_seed(0)
    contract = json.loads(metadata(a.model))["pixels"]
    mean, std = ([value / 255 for value in contract[key]] for key in ("mean", "std"))
    finish = [T.ToTensor(), T.Normalize(mean, std)]
    load = lambda path: Image.open(path).convert("RGB")
    folder = lambda part, *how: torchvision.datasets.ImageFolder(str(a.data / part), T.Compose([*how, *finish]), loader=load)
    see = [T.Resize(256, T.InterpolationMode(contract["filter"])), T.CenterCrop(224)]
    look = [T.RandomResizedCrop(224, (0.7, 1))]
    loader = lambda photos, shuffle: torch.utils.data.DataLoader(photos, BATCH, shuffle=shuffle, drop_last=shuffle)
    test, plain, shown = loader(folder("test", *see), False), loader(folder("train", *see), False), loader(folder("train", *look), True)
    net, teacher = (network(a.net, len(test.dataset.classes)) for _ in range(2))
    fill(net, a.model)
    fill(teacher, a.model)
    teacher.eval()
    before = top1(net, test)
    left = prune(net, a.share, a.criterion)
    estimate(net, plain)
    began = time.perf_counter()
    cut = top1(net, test)
    learn(net, teacher, shown, a.epochs)
    seconds, after = time.perf_counter() - began, top1(net, test)
    print(f"PyTorch: top-1 {before:.2f} % before, {cut:.2f} % pruned, {after:.2f} % after {a.epochs} epochs in {seconds:.0f} s; "
          f"{100 * left:.1f} % of the arithmetic left", flush=True)
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        timed = {"PyTorch, whole": exported(teacher, str(place / "whole.onnx")), "PyTorch, pruned": exported(net, str(place / "pruned.onnx")),
                 "penjing, whole": of_penjing(a.model)}
        for criterion in [a.criterion, "surgeon"]:
            small = place / f"{criterion}.penjing"
            report = json.loads(run("compress", a.model, a.data / "train", "-o", small, "--prune", a.share, "--criterion", criterion,
                                    "--prune-epochs", a.epochs, "--floats", "--max-drop", 100, "--max-latency", 100, "--json", "--quiet"))
            [whole, tests] = [json.loads(run("eval", model, a.data / "test", "--json", "--quiet"))["top1"] for model in (a.model, small)]
            print(f"penjing, {criterion}: top-1 {100 * whole:.2f} % before, {100 * tests:.2f} % after {a.epochs} epochs in "
                  f"{report['prune']['seconds']:.0f} s; {100 * (1 - report['prune']['share']):.1f} % of the arithmetic left", flush=True)
            timed[f"penjing, {criterion}"] = of_penjing(small)
        rounds = [{name: measure() for name, measure in timed.items()} for _ in range(7)]
        for name in timed:
            values = [one[name] for one in rounds]
            print(f"{name}: {statistics.median(values):.2f} ms ({min(values):.2f}–{max(values):.2f})")


if __name__ == "__main__":
    main()
