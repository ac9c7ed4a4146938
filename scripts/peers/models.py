#!/usr/bin/env python3
"""Writes the networks that `cargo xtask bench peers` times, with random weights, as engines and penjing read them.

usage: models.py FOLDER NAME…      (needs torch, torchvision, timm, pillow, onnx, onnxruntime and efficientnet-lite-pytorch)

For each network NAME: NAME.pth (for `penjing weights import`), NAME.onnx, and NAME.pt (TorchScript, from which pnnx
makes ncnn's files). And photo.png: noise, from which penjing makes the input that all of them get; and photos, a folder of more of
it in two classes, from which `penjing compress` makes grids.
"""
import os
import sys

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

LITE_SIZES = [224, 240, 260, 280, 300]


class ConvNorm(torch.nn.Sequential):
    """A 3×3 convolution with TensorFlow's SAME padding, a bias, and BatchNorm."""

    def __init__(self, i, o, stride=1):
        super().__init__()
        # At stride 2 one row and one column are missing, behind the last.
        self.pad = torch.nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else torch.nn.Identity()
        self.conv = torch.nn.Conv2d(i, o, 3, stride, padding=2 - stride)
        self.bn = torch.nn.BatchNorm2d(o, eps=1e-3)


class Block(torch.nn.Module):
    def __init__(self, i, o):
        super().__init__()
        stride = 1 if i == o else 2
        self.conv1, self.conv2 = ConvNorm(i, o, stride), ConvNorm(o, o)
        self.downsample = torch.nn.Identity() if i == o else torch.nn.Conv2d(i, o, 1, stride)

    def forward(self, x):
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.downsample(x))


class ResNet8(torch.nn.Module):
    """MLPerf Tiny's `resnet_v1_eembc` for CIFAR-10."""

    def __init__(self):
        super().__init__()
        self.stem = ConvNorm(3, 16)
        self.blocks = torch.nn.Sequential(Block(16, 16), Block(16, 32), Block(32, 64))
        self.classifier = torch.nn.Linear(64, 10)

    def forward(self, x):
        return self.classifier(self.blocks(torch.relu(self.stem(x))).mean([2, 3]))

    def own_keys(self):
        """The parameters under penjing's names: no other tool publishes them."""
        parts = {"bn.weight": "bn.gamma", "bn.bias": "bn.beta", "bn.running_": "bn.", "conv.": ""}
        state = {key: value for key, value in self.state_dict().items() if not key.endswith("num_batches_tracked")}
        for old, new in parts.items():
            state = {key.replace(old, new): value for key, value in state.items()}
        return state


def network(name):
    """The network of the zoo's name, and its size in pixels."""
    if name == "resnet8":
        return ResNet8(), 32
    if name.startswith("efficientnet_lite"):
        return EfficientNet.from_name(name.replace("_", "-", 1).replace("_", "-")), LITE_SIZES[int(name[-1])]
    if callable(getattr(torchvision.models, name, None)):
        return getattr(torchvision.models, name)(), 224
    if name.startswith("shufflenet_v2"):
        width = name.partition("_x")[2] or "1.0"
        return getattr(torchvision.models, f"shufflenet_v2_x{float(width):.1f}".replace(".", "_"))(), 224
    if name.endswith("_minimal"):
        return timm.create_model(f"tf_mobilenetv3_{name.split('_')[2]}_minimal_100"), 224
    timms = {
        "mnasnet": ("mnasnet_100", 224),
        "mobilenet_v1": ("mobilenetv1_100", 224),
        "mobilenet_v4_conv_small": ("mobilenetv4_conv_small", 224),
        "mobilenet_v4_conv_medium": ("mobilenetv4_conv_medium", 256),
    }
    model, size = timms[name]
    return timm.create_model(model), size


def settle(net, size):
    """Makes the statistics of noise the running ones: else values vanish from layer to layer, and all outputs agree."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(8, 3, size, size))
    return net.eval()


def fold_even_padding(net):
    """Gives a convolution the padding that is a layer of its own before it, where that is the same on all sides."""
    for module in net.modules():
        pad = getattr(module, "static_padding", None)
        if isinstance(pad, torch.nn.ZeroPad2d) and len(set(pad.padding)) == 1:
            module.padding = pad.padding[:2]
            module.static_padding = torch.nn.Identity()


def fold_uneven_padding(model, x):
    """Does the same to the Pad nodes that are left: a convolution of ONNX knows four sides, one of PyTorch two."""
    graph = model.graph
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    if not pads:
        return model
    # The exporter computes the amounts by a chain of nodes, from constants or from the map's shape.
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    names = list({pad.input[1] for pad in pads.values()})
    asked.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in names)
    session = onnxruntime.InferenceSession(asked.SerializeToString(), providers=["CPUExecutionProvider"])
    amounts = dict(zip(names, session.run(names, {"x": x.numpy()})))
    for conv in graph.node:
        if conv.op_type == "Conv" and conv.input[0] in pads:
            pad = pads[conv.input[0]]
            _, _, top, left, _, _, bottom, right = amounts[pad.input[1]].tolist()
            sides = next(attribute for attribute in conv.attribute if attribute.name == "pads")
            sides.ints[:] = np.add(sides.ints, [top, left, bottom, right]).tolist()
            conv.input[0] = pad.input[0]
    # What nobody reads any more; a reader stands after what it reads.
    read = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)
    return model


folder, names = sys.argv[1], sys.argv[2:]
torch.manual_seed(0)
noise = np.random.default_rng(0)
for photo in ["photo.png", *(f"photos/{label}/{number}.png" for label in (0, 1) for number in range(8))]:
    path = os.path.join(folder, photo)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(noise.integers(0, 256, (300, 300, 3), np.uint8)).save(path)
for name in names:
    net, size = network(name)
    name = name.replace(".", "_")
    net = settle(net, size)
    x = torch.rand(1, 3, size, size)
    torch.save(net.own_keys() if hasattr(net, "own_keys") else net.state_dict(), f"{folder}/{name}.pth")
    fold_even_padding(net)
    path = f"{folder}/{name}.onnx"
    torch.onnx.export(net, x, path, input_names=["x"], output_names=["y"], dynamo=False, opset_version=17)
    model = fold_uneven_padding(onnx.load(path), x)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    torch.jit.trace(net, x).save(f"{folder}/{name}.pt")
