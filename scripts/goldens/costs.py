#!/usr/bin/env python3
"""Golden costs of whole networks, counted on PyTorch's: parameters, and multiply-accumulates of convolutions and linear
layers for one photo.

usage: costs.py [OUT]        (needs torch, torchvision, timm, efficientnet-lite-pytorch)
"""
import sys

import timm.models.efficientnet
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet

OUT = sys.argv[1] if len(sys.argv) > 1 else "crates/penjing/tests/goldens/costs.csv"


def mobilenet_v1(width):
    return timm.models.efficientnet._gen_mobilenet_v1("mobilenetv1_100", width, pad_type="same")


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


with open(OUT, "w") as out:
    print("arch,width,size,params,macs", file=out)
    for arch, width, size, net in [
        ("efficientnet_lite0", 1.0, 224, EfficientNet.from_name("efficientnet-lite0")),
        ("mobilenet_v1", 1.0, 224, mobilenet_v1(1.0)),
        ("mobilenet_v1", 0.25, 96, mobilenet_v1(0.25)),
        ("mobilenet_v1", 0.75, 75, mobilenet_v1(0.75)),
        ("mobilenet_v2", 1.0, 224, torchvision.models.mobilenet_v2()),
        ("mobilenet_v2", 0.35, 96, torchvision.models.mobilenet_v2(width_mult=0.35)),
        ("mobilenet_v2", 1.4, 75, torchvision.models.mobilenet_v2(width_mult=1.4)),
    ]:
        params = sum(p.numel() for p in net.parameters())
        print(arch, width, size, params, macs(net, size), sep=",", file=out)
