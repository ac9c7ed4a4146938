#!/usr/bin/env python3
"""Golden logits and costs of every network of the zoo in every form of its weights, by torchvision, timm and others.

usage: zoo.py [FOLDER]    (needs torch, torchvision, timm, transformers, safetensors and efficientnet-lite-pytorch)

Writes zoo.safetensors: ten logits of each network, `ARCH_xWIDTH_SIZE@FORM`, on one image, under weights that follow from
their names, so that a key that means another tensor is found. And costs.csv: parameters and multiply-accumulates of
convolutions and linear layers for one photo.
"""
import pathlib
import sys

import numpy as np
import timm
import timm.models.efficientnet as effnet
import timm.models.mobilenetv3 as mobilenetv3
import torch
import torch.nn.functional as F
import torchvision.models as tv
import transformers
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crates/penjing/tests/goldens")
CLASSES = 10


def split_mix(seed, count):
    """SplitMix64's outputs, as numpy uint64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed, count):
    """Values -1..1."""
    return (split_mix(seed, count) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1.0)


def fnv1a(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def image(size):
    x = uniform(4, size * size * 3).reshape(1, size, size, 3)
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def values(key, shape):
    """A tensor that follows from its key, of a scale that keeps the maps'."""
    u = uniform(fnv1a(key), int(np.prod(shape)))
    name = key.rsplit(".", 1)[1]
    if len(shape) > 1:
        u = u * np.float32(np.sqrt(np.float32(6.0 / np.prod(shape[1:]))))
    elif name in ("running_var", "var", "weight", "gamma"):
        u = np.float32(1.0) + np.float32(0.25) * u
    else:
        u = np.float32(0.1) * u
    return torch.from_numpy(u.astype(np.float32)).reshape(shape)


def filled(net):
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(values(key, tuple(tensor.shape)))
    return net.eval()


def macs(net, size):
    total = 0

    def count(module, _, output):
        nonlocal total
        # Each output value is one product with one filter.
        total += output.numel() * module.weight[0].numel()

    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net.eval()(torch.zeros(1, 3, size, size))
    return total


class ResNet8(torch.nn.Module):
    """MLPerf Tiny's `resnet_v1_eembc`, its parameters under penjing's names, which PyTorch cannot hold: a table."""

    def __init__(self, classes):
        super().__init__()
        self.shapes = {}
        self.layer("stem", 3, 16, 3)
        for block, (i, o) in enumerate([(16, 16), (16, 32), (32, 64)]):
            self.layer(f"blocks.{block}.conv1", i, o, 3)
            self.layer(f"blocks.{block}.conv2", o, o, 3)
            if i != o:
                self.shapes |= {f"blocks.{block}.downsample.weight": (o, i, 1, 1), f"blocks.{block}.downsample.bias": (o,)}
        self.shapes |= {"classifier.weight": (classes, 64), "classifier.bias": (classes,)}
        self.w = {key: values(key, shape) for key, shape in self.shapes.items()}
        self.macs = 0

    def layer(self, name, i, o, k):
        self.shapes |= {f"{name}.weight": (o, i, k, k), f"{name}.bias": (o,)}
        self.shapes |= {f"{name}.bn.{part}": (o,) for part in ("gamma", "beta", "mean", "var")}

    def conv(self, name, x, stride, norm=True):
        w = self.w[f"{name}.weight"]
        # TensorFlow's SAME.
        total = max((-(-x.shape[2] // stride) - 1) * stride + w.shape[2] - x.shape[2], 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        y = F.conv2d(x, w, self.w[f"{name}.bias"], stride)
        self.macs += y.numel() * w[0].numel()
        bn = [self.w[f"{name}.bn.{part}"] for part in ("mean", "var", "gamma", "beta")] if norm else None
        return F.batch_norm(y, *bn, eps=1e-3) if norm else y

    def forward(self, x):
        self.macs = 0
        x = F.relu(self.conv("stem", x, 1))
        for block, stride in enumerate((1, 2, 2)):
            y = F.relu(self.conv(f"blocks.{block}.conv1", x, stride))
            y = self.conv(f"blocks.{block}.conv2", y, 1)
            if stride != 1:
                x = self.conv(f"blocks.{block}.downsample", x, stride, norm=False)
            x = F.relu(x + y)
        w = self.w["classifier.weight"]
        self.macs += w.numel()
        return F.linear(x.mean((2, 3)), w, self.w["classifier.bias"])


class Hugging(torch.nn.Module):
    """A network of `transformers`, giving logits."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).logits

    def state_dict(self):
        return self.net.state_dict()


def v1_transformers(width, classes):
    config = transformers.MobileNetV1Config(depth_multiplier=width, min_depth=8, num_labels=classes)
    return Hugging(transformers.MobileNetV1ForImageClassification(config))


def v1_timm(width, classes, **more):
    return effnet._gen_mobilenet_v1("mobilenetv1_100", width, num_classes=classes, **more)


def v2_timm(width, classes):
    return effnet._gen_mobilenet_v2("mobilenetv2_100", width, num_classes=classes)


def v3(variant):
    def make(width, classes, **more):
        return mobilenetv3._gen_mobilenet_v3(variant, width, num_classes=classes, **more)

    return make


def v4(variant):
    return lambda width, classes: mobilenetv3._gen_mobilenet_v4(variant, width, num_classes=classes)


TF = {"pad_type": "same", "bn_eps": 1e-3}


def lite(n):
    name, size = f"efficientnet_lite{n}", [224, 240, 260, 280, 300][n]
    package = lambda _, classes: EfficientNet.from_name(f"efficientnet-lite{n}", num_classes=classes)
    # The package pads for the published size only.
    yield name, "efficientnet_lite_pytorch", [(1.0, size)], package
    yield name, "tf", [(1.0, 75)], lambda _, classes: timm.create_model(f"tf_{name}", num_classes=classes)
    yield name, "timm", [(1.0, 96)], lambda _, classes: timm.create_model(name, num_classes=classes)


def networks():
    for n in range(5):
        yield from lite(n)
    mnasnet = lambda width, classes: tv.MNASNet(width, num_classes=classes)
    yield "mnasnet", "torchvision", [(1.0, 96), (0.5, 75), (1.3, 64)], mnasnet
    timms = lambda width, classes: timm.create_model(f"mnasnet_{100 * width:03.0f}", num_classes=classes)
    yield "mnasnet", "timm", [(1.0, 96), (0.5, 75)], timms
    yield "mobilenet_v1", "transformers", [(1.0, 96), (0.25, 75), (0.75, 64)], v1_transformers
    yield "mobilenet_v1", "timm", [(1.0, 96), (0.5, 75)], v1_timm
    yield "mobilenet_v2", "torchvision", [(1.0, 96), (0.35, 75), (1.4, 64)], lambda width, classes: tv.mobilenet_v2(
        width_mult=width, num_classes=classes
    )
    yield "mobilenet_v2", "timm", [(1.0, 96), (0.5, 75), (1.4, 64)], v2_timm
    for size in ("large", "small"):
        name, timms = f"mobilenet_v3_{size}", v3(f"mobilenetv3_{size}_100")
        yield name, "torchvision", [(1.0, 96)], lambda _, classes, name=name: getattr(tv, name)(num_classes=classes)
        yield name, "timm", [(1.0, 96), (0.75, 75), (0.5, 64)], timms
        tfs = lambda width, classes, timms=timms: timms(width, classes, **TF)
        yield name, "tf", [(1.0, 96), (0.75, 75)], tfs
        minimal = v3(f"tf_mobilenetv3_{size}_minimal_100")
        tfs = lambda width, classes, minimal=minimal: minimal(width, classes, **TF)
        yield f"{name}_minimal", "tf", [(1.0, 96), (0.75, 75)], tfs
    for size in ("small", "medium"):
        name = f"mobilenet_v4_conv_{size}"
        yield name, "timm", [(1.0, 96), (0.5, 75)], v4(f"mobilenetv4_conv_{size}")
    yield "resnet8", "penjing", [(1.0, 32), (1.0, 45)], lambda _, classes: ResNet8(classes)
    for n in (18, 34, 50):
        name = f"resnet{n}"
        yield name, "torchvision", [(1.0, 64)], lambda _, classes, name=name: getattr(tv, name)(num_classes=classes)
        yield name, "timm", [(1.0, 75)], lambda _, classes, name=name: timm.create_model(name, num_classes=classes)
    shuffle = lambda width, classes: getattr(tv, f"shufflenet_v2_x{str(width).replace('.', '_')}")(num_classes=classes)
    yield "shufflenet_v2", "torchvision", [(1.0, 96), (0.5, 75), (1.5, 64), (2.0, 64)], shuffle
    for n in ("1_0", "1_1"):
        name = f"squeezenet{n}"
        yield name, "torchvision", [(1.0, 96), (1.0, 75)], lambda _, classes, name=name: getattr(tv, name)(num_classes=classes)


SIZES = {f"efficientnet_lite{n}": size for n, size in enumerate([224, 240, 260, 280, 300])} | {
    "resnet8": 32,
    "mobilenet_v4_conv_medium": 256,
}
COSTS = {
    "mobilenet_v1": [(0.25, 96), (0.75, 75)],
    "mobilenet_v2": [(0.35, 96), (1.4, 75)],
}


def cost(name, width, size, make):
    net = make(width, 10 if name == "resnet8" else 1000)
    if name == "resnet8":
        net(torch.zeros(1, 3, size, size))
        learnt = [shape for key, shape in net.shapes.items() if not key.endswith((".mean", ".var"))]
        return sum(int(np.prod(shape)) for shape in learnt), net.macs
    return sum(p.numel() for p in net.parameters()), macs(net, size)


tensors, rows, seen = {}, [], set()
for name, form, cases, make in networks():
    for width, size in cases:
        net = make(width, CLASSES)
        net = net if name == "resnet8" else filled(net)
        with torch.inference_mode():
            logits = net(image(size))[0].clone()
        tensors[f"{name}_x{width}_{size}@{form}"] = logits
        print(f"{name}_x{width}_{size}@{form}: {logits.abs().max():.3g}", flush=True)
    widths = sorted({width for width, _ in cases}, reverse=True)
    for width, size in [(w, SIZES.get(name, 224)) for w in widths] + COSTS.get(name, []):
        if (name, width, size) not in seen:
            seen.add((name, width, size))
            rows.append((name, width, size, *cost(name, width, size, make)))
save_file(tensors, OUT / "zoo.safetensors", metadata={"torch": torch.__version__, "timm": timm.__version__})
with open(OUT / "costs.csv", "w") as out:
    print("arch,width,size,params,macs", file=out)
    for row in sorted(rows):
        print(*row, sep=",", file=out)
