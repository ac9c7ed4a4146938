#!/usr/bin/env python3
"""ONNX files as PyTorch's two exporters and ONNX's own tools write them, with the logits that onnxruntime gives.

Needs torch, timm, onnx, onnxscript, onnxruntime, numpy. Run from the repository root: python scripts/goldens/onnx_files.py

Writes crates/penjing/tests/goldens/onnx/: small networks with random weights that hold, between them, every pattern that
the importer knows; expected.json, which holds for each file its logits on an input that penjing makes itself, or parts of
the message with which it is refused; and the seeds of the fuzz target.
"""

import io
import json
import pathlib
import shutil
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from onnx import TensorProto, helper, numpy_helper
from torch import nn

warnings.filterwarnings("ignore")
OUT = pathlib.Path("crates/penjing/tests/goldens/onnx")
SEEDS = pathlib.Path("fuzz/seeds/onnx")
expected = {}


def image(shape):
    """Values -1..1 from SplitMix64 with seed 1, drawn in NHWC order; returned as NCHW."""
    n, c, h, w = shape
    with np.errstate(over="ignore"):
        z = np.uint64(1) + np.arange(1, n * h * w * c + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    x = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1.0)
    return x.reshape(n, h, w, c).transpose(0, 3, 1, 2).copy()


def keep(name, content, size, skipped=(), layout="nchw", mean=None, std=None, unit=255, softmax=False, labels=None, tolerance=1e-4):
    """Writes a file that must give onnxruntime's logits. `mean` and `std` are those that the contract must have where
    the file normalizes its input, which is 0..unit."""
    (OUT / name).write_bytes(content)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    x = image((1, 3, size, size))
    # The importer's network takes the normalized image where the file normalizes inside.
    if mean is not None:
        x = x * np.float32(std).reshape(1, 3, 1, 1) + np.float32(mean).reshape(1, 3, 1, 1)
        x = x / np.float32(unit)
    if layout == "nhwc":
        x = x.transpose(0, 2, 3, 1).copy()
    if given.type == "tensor(float16)":
        x = x.astype(np.float16)
    batch = given.shape[0] if isinstance(given.shape[0], int) else 1
    logits = session.run(None, {given.name: np.repeat(x, batch, axis=0)})[0][0].reshape(-1).astype(np.float32)
    expected[name] = {
        "size": size,
        "logits": logits.tolist(),
        "skipped": sorted(skipped),
        "softmax": softmax,
        "tolerance": tolerance,
    }
    if mean is not None:
        expected[name] |= {"mean": list(mean), "std": list(std)}
    if labels is not None:
        expected[name]["labels"] = labels


def refuse(name, content, *says):
    """Writes a file that must be refused with a message that holds each of `says`."""
    (OUT / name).write_bytes(content)
    expected[name] = {"error": list(says)}


def randomized(net, seed=0):
    """Random weights, and statistics of BatchNorm that are not those of new ones."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


def exported(net, size, new=False, dynamic=False, batch=1, **options):
    out = io.BytesIO()
    x = torch.from_numpy(np.repeat(image((1, 3, size, size)), batch, axis=0))
    if new:
        if dynamic:
            options["dynamic_shapes"] = ({0: torch.export.Dim("batch", min=1, max=64)},)
        program = torch.onnx.export(net, (x,), dynamo=True, verbose=False, **options)
        proto = program.model_proto
        # Where each operation stands in someone's source is of no use here.
        for node in proto.graph.node:
            del node.metadata_props[:]
        del proto.graph.value_info[:]
        return proto.SerializeToString()
    if dynamic:
        options["dynamic_axes"] = {"input": {0: "batch"}}
    options.setdefault("opset_version", 17)
    torch.onnx.export(net, (x,), out, dynamo=False, input_names=["input"], output_names=["output"], **options)
    return out.getvalue()


def conv_bn(cin, cout, kernel, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, gate=nn.Hardsigmoid, mean=False):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate, self.mean = gate(), mean

    def forward(self, x):
        y = x.mean((2, 3), keepdim=True) if self.mean else F.adaptive_avg_pool2d(x, 1)
        return self.gate(self.expand(F.relu(self.reduce(y)))) * x


class InvertedResidual(nn.Module):
    def __init__(self, channels, act, squeeze=None):
        super().__init__()
        hidden = 2 * channels
        self.layers = nn.Sequential(
            conv_bn(channels, hidden, 1, act=act),
            conv_bn(hidden, hidden, 3, groups=hidden, act=act),
            *([squeeze(hidden)] if squeeze else []),
            conv_bn(hidden, channels, 1, act=None),
        )

    def forward(self, x):
        return x + self.layers(x)


class MobileNet(nn.Module):
    """The stem, two blocks and the head of MobileNetV2 or V3."""

    def __init__(self, act, squeeze=None, dropout=0.2):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2, act=act)
        self.blocks = nn.Sequential(InvertedResidual(8, act, squeeze), InvertedResidual(8, act, squeeze))
        self.head = conv_bn(8, 16, 1, act=act)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(16, 5))

    def forward(self, x):
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class SplitSwish(nn.Module):
    """Activations as code without a module for them writes them."""

    def forward(self, x):
        a, b, c = torch.split(x, [4, 2, 2], dim=1)
        a = a * (F.relu6(a + 3) / 6)
        b = b * F.relu6(b + 3) / 6
        return torch.cat([a, b, c * torch.sigmoid(c)], 1)


class ShuffleUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, 3, groups=4, act=None), conv_bn(4, 4, 1))

    def forward(self, x):
        kept, changed = x.chunk(2, dim=1)
        x = torch.cat((kept, self.branch(changed)), 1)
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8, 3, 2), nn.MaxPool2d(3, 2, 1), ShuffleUnit(), ShuffleUnit())
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.stem(x).mean([2, 3]))


class Fire(nn.Module):
    def __init__(self, cin):
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(cin, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self):
        super().__init__()
        pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), pool(), Fire(8), pool(), Fire(8))
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)))

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


class BasicBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(conv_bn(6, 12, 3, 2), conv_bn(12, 12, 3, act=None))
        self.down = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), conv_bn(6, 12, 1, act=None))

    def forward(self, x):
        return F.leaky_relu(self.body(x) + self.down(x), 0.1)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 6, 3, 2), nn.AvgPool2d(3, 2, 1))
        self.block = BasicBlock()
        self.fc = nn.Linear(12 * 5 * 5, 5)

    def forward(self, x):
        # A map laid flat: its order is the file's axes'.
        return self.fc(F.relu6(torch.flatten(self.block(self.stem(x)), 1)))


class SameConv(nn.Conv2d):
    """TensorFlow's padding as timm computes it."""

    def forward(self, x):
        sides = []
        for axis in (3, 2):
            k, s, d, extent = self.kernel_size[axis - 2], self.stride[axis - 2], self.dilation[axis - 2], x.size(axis)
            total = max((-(extent // -s) - 1) * s + (k - 1) * d + 1 - extent, 0)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class EfficientNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.depthwise = nn.Sequential(SameConv(8, 8, 5, 2, groups=8, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.squeeze = SqueezeExcite(8, nn.Sigmoid, mean=True)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.dilated(self.squeeze(self.depthwise(self.stem(x))))
        return self.fc(x.mean(3).mean(2))


class Normalized(nn.Module):
    """The normalization inside the network, and one after it."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean = nn.Buffer(torch.tensor(mean).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).view(1, 3, 1, 1))
        self.stem = nn.Conv2d(3, 6, 3, 2, padding=1)
        self.scale = nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.body = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = (x - self.mean) / self.std
        x = 1.5 - self.scale * self.stem(x)
        return torch.softmax(self.fc(F.relu(self.body(x)).mean((2, 3))), 1)


def torch_files():
    for exporter, new in [("script", False), ("dynamo", True)]:
        named = lambda name: f"{name}_{exporter}.onnx"
        keep(named("mobilenet_v2"), exported(randomized(MobileNet(nn.ReLU6)), 32, new), 32)
        v3 = randomized(MobileNet(nn.Hardswish, SqueezeExcite))
        keep(named("mobilenet_v3"), exported(v3, 32, new, dynamic=True), 32)
        swish = nn.Sequential(conv_bn(3, 8, 3, 2, act=None), SplitSwish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        keep(named("swish"), exported(randomized(swish), 16, new), 16)
        keep(named("shufflenet"), exported(randomized(ShuffleNet()), 32, new), 32)
        keep(named("squeezenet"), exported(randomized(SqueezeNet()), 33, new), 33)
        keep(named("resnet"), exported(randomized(ResNet()), 37, new), 37)
        keep(named("efficientnet"), exported(randomized(EfficientNet()), 31, new), 31)
        unit = Normalized([0.5, 0.4, 0.3], [0.25, 0.2, 0.3])
        contract = {"mean": [127.5, 102.0, 76.5], "std": [63.75, 51.0, 76.5]}
        keep(named("normalized"), exported(randomized(unit), 16, new), 16, softmax=True, **contract)
    same = nn.Sequential(Conv2dSame(3, 6, 3, 2), nn.ReLU6(), Conv2dSame(6, 6, 5, 2, groups=6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    keep("same_padding_dynamic.onnx", exported(randomized(same), 30, dynamic=True), 30)
    keep("shufflenet_dynamic.onnx", exported(randomized(ShuffleNet()), 32, dynamic=True), 32)
    keep("shufflenet_dynamic_dynamo.onnx", exported(randomized(ShuffleNet()), 32, True, dynamic=True), 32)
    keep("mobilenet_v2_opset9.onnx", exported(randomized(MobileNet(nn.ReLU6)), 32, opset_version=9), 32)
    training = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    keep("mobilenet_v3_unfolded.onnx", exported(randomized(MobileNet(nn.Hardswish, SqueezeExcite)), 32, **training), 32)
    keep("squeezenet_batch4.onnx", exported(randomized(SqueezeNet()), 33, batch=4), 33)
    content = exported(randomized(MobileNet(nn.ReLU6)), 32)
    open_size = onnx.load_from_string(content)
    for axis in (2, 3):
        open_size.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    keep("open_size.onnx", open_size.SerializeToString(), 32)
    expected["open_size.onnx"]["needs_size"] = True
    named = onnx.load_from_string(content)
    helper.set_model_props(named, {"names": "{0: 'crane', 1: \"bird's\", 2: 'crane', 3: 'd', 4: 'e'}"})
    keep("names.onnx", named.SerializeToString(), 32, labels=["crane", "bird's", "crane (2)", "d", "e"])
    external = onnx.load_from_string(content)
    onnx.save(external, OUT / "external.onnx", save_as_external_data=True, location="external.bin", size_threshold=0)
    expected["external.onnx"] = expected["names.onnx"] | {"labels": None}


def weight(name, *shape, scale=0.5, dtype=np.float32):
    values = image((1, 1, 1, int(np.prod(shape)))).reshape(shape) * scale
    return numpy_helper.from_array(np.ascontiguousarray(values.astype(dtype)), name)


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def made(nodes, weights, shape=(1, 3, 16, 16), opset=17, out="y", kind=TensorProto.FLOAT, ir=8, inputs=None, rank=2, check=True):
    given = inputs or [helper.make_tensor_value_info("x", kind, shape)]
    result = kind if kind != TensorProto.UINT8 else TensorProto.FLOAT
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info(out, result, [None] * rank)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    if check:
        onnx.checker.check_model(model)
    return model.SerializeToString()


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


STEM = [node("Conv", "x w b", "c", strides=[2, 2], auto_pad="SAME_UPPER"), node("Relu", "c", "r")]
STEM_WEIGHTS = [weight("w", 6, 3, 3, 3), weight("b", 6)]
HEAD = [node("GlobalAveragePool", "r", "g"), node("Flatten", "g", "f"), node("Gemm", "f fw fb", "y", transB=1)]
HEAD_WEIGHTS = [weight("fw", 4, 6), weight("fb", 4)]


def between(*nodes, weights=(), **options):
    """Nodes from the map `r` to the map `m` between a stem and a head."""
    head = [node("GlobalAveragePool", "m", "g"), *HEAD[1:]]
    return made([*STEM, *nodes, *head], [*STEM_WEIGHTS, *HEAD_WEIGHTS, *weights], **options)


def made_files():
    keep("plain.onnx", made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS), 16)
    spare = [weight("spare", 2), ints("spare_too", 1)]
    keep("unused.onnx", made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS + spare), 16, skipped=["spare", "spare_too"])
    # Nodes in no order; onnxruntime puts them in one as well.
    keep("unordered.onnx", made((STEM + HEAD)[::-1], STEM_WEIGHTS + HEAD_WEIGHTS, check=False), 16)
    lower = [node("Conv", "x w b", "c", strides=[2, 2], auto_pad="SAME_LOWER"), *STEM[1:]]
    keep("same_lower.onnx", made(lower + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS), 16)
    gemm = [node("Gemm", "f fw fb", "y", alpha=0.5, beta=2.0)]
    keep("gemm.onnx", made(STEM + HEAD[:2] + gemm, STEM_WEIGHTS + [weight("fw", 6, 4), weight("fb", 1, 4)]), 16)
    # TensorFlow's converter: channels last outside, products and sums as they come, weights as inputs too.
    tf = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c", strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Add", "c s", "a"),
        node("Clip", "a zero six", "r"),
        node("Transpose", "r", "l", perm=[0, 2, 3, 1]),
        node("MatMul", "l pw", "p"),
        node("Mul", "p ps", "q"),
        node("ReduceMean", "q", "g", axes=[1, 2], keepdims=0),
        node("MatMul", "g fw", "m"),
        node("Add", "fb m", "logits"),
        node("Softmax", "logits", "y"),
    ]
    scalars = [numpy_helper.from_array(np.float32(0), "zero"), numpy_helper.from_array(np.float32(6), "six")]
    weights = [weight("w", 6, 3, 3, 3), weight("s", 1, 6, 1, 1), weight("pw", 6, 6), weight("ps", 6)]
    weights += [weight("fw", 6, 4), weight("fb", 4), *scalars]
    keep("channels_last.onnx", made(tf, weights, shape=("n", 16, 16, 3)), 16, layout="nhwc", softmax=True)
    flat = [node("Transpose", "r", "l", perm=[0, 2, 3, 1]), node("Flatten", "l", "f"), HEAD[2]]
    keep("flat_channels_last.onnx", made(STEM + flat, STEM_WEIGHTS + [weight("fw", 4, 384), weight("fb", 4)]), 16)
    # Shapes computed step by step, and a result with sides.
    steps = [
        node("Shape", "r", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n first", "n1"),
        node("Constant", "", "rest", value_ints=[-1]),
        node("Concat", "n1 rest", "shape", axis=0),
        node("Reshape", "r shape", "f"),
        node("Gemm", "f fw fb", "v"),
        node("Unsqueeze", "v sides", "y"),
    ]
    more = [numpy_helper.from_array(np.int64(0), "zero"), ints("first", 0), ints("sides", 2, 3)]
    keep("steps.onnx", made(STEM + steps, STEM_WEIGHTS + more + [weight("fw", 384, 4), weight("fb", 4)], shape=("n", 3, 16, 16), rank=4), 16)
    # Weights in half precision, and in integers.
    half = [weight("w", 6, 3, 3, 3, dtype=np.float16), weight("b", 6, dtype=np.float16)]
    half += [weight("fw", 4, 6, dtype=np.float16), weight("fb", 4, dtype=np.float16)]
    keep("half.onnx", made(STEM + HEAD, half, kind=TensorProto.FLOAT16), 16, tolerance=5e-3)
    quantized = numpy_helper.from_array((np.arange(162) * 7 % 251 - 125).astype(np.int8).reshape(6, 3, 3, 3), "q")
    scale = numpy_helper.from_array(np.linspace(0.01, 0.02, 6).astype(np.float32), "scale")
    zero = numpy_helper.from_array(np.arange(6).astype(np.int8), "zero")
    dequantize = node("DequantizeLinear", "q scale zero", "w", axis=0)
    keep("int8_weights.onnx", made([dequantize, *STEM, *HEAD], [quantized, scale, zero, STEM_WEIGHTS[1], *HEAD_WEIGHTS]), 16)
    # Bytes in, as a camera gives them.
    pixels = [
        node("Cast", "x", "xf", to=TensorProto.FLOAT),
        node("Transpose", "xf", "xt", perm=[0, 3, 1, 2]),
        node("Sub", "xt mean", "xc"),
        node("Mul", "xc factor", "xn"),
        node("Conv", "xn w b", "c", strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    mean, factor = np.float32([120, 110, 100]).reshape(1, 3, 1, 1), np.float32([[[1 / 64]]])
    bytes_in = [numpy_helper.from_array(mean, "mean"), numpy_helper.from_array(factor, "factor")]
    content = made(pixels + STEM[1:] + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS + bytes_in, shape=(1, 16, 16, 3), kind=TensorProto.UINT8)
    # onnxruntime takes whole bytes only, so the same network on floats gives the logits.
    on_floats = [node("Identity", "x", "xf"), *pixels[1:]]
    keep("bytes.onnx", made(on_floats + STEM[1:] + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS + bytes_in, shape=(1, 16, 16, 3)), 16,
         layout="nhwc", unit=1, mean=[120, 110, 100], std=[64, 64, 64])
    (OUT / "bytes.onnx").write_bytes(content)
    shuffle = [
        node("Reshape", "r five", "g5"),
        node("Transpose", "g5", "t5", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t5 four", "sh"),
        node("Slice", "sh one three axes", "s0"),
        node("Slice", "sh three minus axes", "s1"),
        node("Slice", "sh minus end axes", "s2"),
        node("Concat", "s2 s0 s1", "cat", axis=-3),
        node("Pad", "cat pads", "pad"),
        node("MaxPool", "pad", "m", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    ]
    constants = [ints("five", 0, 3, 2, 8, 8), ints("four", 0, -1, 8, 8), ints("one", 0), ints("three", 3), ints("minus", -1)]
    constants += [ints("end", 2**63 - 1), ints("axes", 1), ints("pads", 0, 0, 1, 2, 0, 0, 0, 1)]
    keep("shuffle_slice_pad.onnx", between(*shuffle, weights=constants), 16)
    # Constants for each channel: of a convolution that two nodes read, one of which changes it further; of an activation.
    scaled = [
        node("Conv", "r pw", "p"),
        node("Mul", "p half", "p1"),
        node("Relu", "p1", "u"),
        node("Add", "p1 third", "p2"),
        node("Mul", "p2 per", "p3"),
        node("Add", "u p3", "v"),
        node("Sub", "third v", "w3"),
        node("Add", "w3 three", "t"),
        node("Clip", "t zero six", "t6"),
        node("Mul", "w3 t6", "s6"),
        node("Div", "s6 six", "sw"),
        node("Add", "sw r", "m"),
    ]
    numbers = {"half": 0.5, "third": 1 / 3, "three": 3, "zero": 0, "six": 6}
    numbers = [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()]
    keep("scaled.onnx", between(*scaled, weights=[weight("pw", 6, 6, 1, 1), weight("per", 6, 1, 1), *numbers]), 16)
    gate = [
        node("ReduceMean", "r", "mean", axes=[-1, -2]),
        node("Conv", "mean sw sb", "se"),
        node("HardSigmoid", "se", "gate", alpha=1 / 6, beta=0.5),
        node("Mul", "gate r", "gated"),
        node("BatchNormalization", "gated gamma beta mu var", "bn", epsilon=0.01),
        node("AveragePool", "bn", "m", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
    ]
    norm = [weight("sw", 6, 6, 1, 1), weight("sb", 6), weight("gamma", 6), weight("beta", 6), weight("mu", 6)]
    norm += [numpy_helper.from_array(np.linspace(0.5, 1.5, 6).astype(np.float32), "var")]
    keep("gate_norm_pool.onnx", between(*gate, weights=norm), 16)


def refused_files():
    unknown = [node("GridSample", "r grid", "a"), node("Erf", "a", "e"), node("Erf", "e", "m")]
    refuse("unknown_ops.onnx", between(*unknown, weights=[weight("grid", 1, 4, 4, 2)]),
           "2 operations that are not known", "Erf in `Erf_e`, `Erf_m`", "GridSample in `GridSample_a`")
    many = [node("Erf", "r" if i == 0 else f"e{i - 1}", f"e{i}" if i < 11 else "m") for i in range(12)]
    refuse("many_unknown.onnx", between(*many), "an operation that is not known", "`Erf_e7`, and 4 more")
    circle = [node("Add", "r z", "q"), node("Relu", "q", "z"), node("Relu", "z", "m")]
    refuse("circle.onnx", between(*circle, check=False), "goes in a circle", "Add_q")
    twice = [node("Relu", "r", "m"), node("Sigmoid", "r", "m")]
    refuse("made_twice.onnx", between(*twice, check=False), "makes `m` in two nodes")
    refuse("missing.onnx", between(node("Add", "r nothing", "m"), check=False), "Add_m", "`nothing`, which nothing here gives")
    refuse("huge_image.onnx", made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS, shape=(1, 3, 2**40, 2**40)), "input `x`", "outside 1..=")
    huge = [node("Conv", "r hw", "m", pads=[2**40, 0, 0, 0])]
    refuse("huge_padding.onnx", between(*huge, weights=[weight("hw", 6, 6, 1, 1)], check=False), "Conv_m", "out of range")
    lies = onnx.load_from_string(made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS))
    lies.graph.initializer[0].dims[:] = [2**20, 2**20, 3, 3]
    refuse("huge_weight.onnx", lies.SerializeToString(), "constant `w`", "more than")
    lies.graph.initializer[0].dims[:] = [6, 3, 3, 4]
    refuse("short_weight.onnx", lies.SerializeToString(), "constant `w`", "162 values, and 216")
    for name, location, says in [
        ("external_above", "../secret.bin", "own folder"),
        ("external_absolute", "/etc/hostname", "own folder"),
        ("external_gone", "gone.bin", "beside the model"),
    ]:
        out = onnx.load_from_string(made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS))
        tensor = out.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        refuse(f"{name}.onnx", out.SerializeToString(), "constant `w`", location, says)
    two = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 16, 16)) for name in ("x", "z")]
    added = [node("Add", "x z", "s"), node("Conv", "s w b", "c"), node("Relu", "c", "r")]
    refuse("two_inputs.onnx", made(added + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS, inputs=two), "2 inputs, `x`, `z`")
    results = onnx.load_from_string(made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS))
    results.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [None] * 4))
    refuse("two_results.onnx", results.SerializeToString(), "2 results, `y`, `r`")
    refuse("a_map.onnx", made(STEM, STEM_WEIGHTS, out="r", rank=4), "result has the shape [1, 6, 8, 8]", "each class")
    refuse("old_opset.onnx", made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS, opset=6, check=False), "version 6", "7 or newer")
    refuse("hard_sigmoid.onnx", between(node("HardSigmoid", "r", "m")), "HardSigmoid_m", "0.2·x + 0.5")
    refuse("clip.onnx", between(node("Clip", "r lo hi", "m"), weights=[numpy_helper.from_array(np.float32(-1), "lo"), numpy_helper.from_array(np.float32(1), "hi")]),
           "Clip_m", "-1..1")
    refuse("edge_pad.onnx", between(node("Pad", "r p", "m", mode="edge"), weights=[ints("p", 0, 0, 1, 1, 0, 0, 1, 1)]), "Pad_m", "mode `edge`")
    refuse("spatial_concat.onnx", between(node("Concat", "r r", "m", axis=2)), "Concat_m", "axis 2")
    refuse("transposed_map.onnx", between(node("Transpose", "r", "m", perm=[0, 1, 3, 2])), "Transpose_m", "[0, 1, 3, 2]")
    vectors = made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS, shape=(1, 48))
    refuse("vector_input.onnx", vectors, "input `x`", "2 axes")
    refuse("five_channels.onnx", made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS, shape=(1, 5, 16, 16), check=False), "[1,5,16,16]", "1 or 3 channels")
    function = onnx.load_from_string(made(STEM + HEAD, STEM_WEIGHTS + HEAD_WEIGHTS))
    body = helper.make_function("mine", "Act", ["a"], ["o"], [helper.make_node("Relu", ["a"], ["o"])], [helper.make_opsetid("", 17)])
    function.functions.append(body)
    function.opset_import.append(helper.make_opsetid("mine", 1))
    function.graph.node[1].op_type, function.graph.node[1].domain = "Act", "mine"
    refuse("function.onnx", function.SerializeToString(), "mine.Act in `Relu_r`", "onnx.inliner")
    refuse("empty_graph.onnx", b"\x08\x08\x3a\x00", "no nodes")
    refuse("no_onnx.onnx", b"\x08\x0a" + b"\x9a" * 40, "no ONNX file")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.rmtree(SEEDS, ignore_errors=True)
    OUT.mkdir(parents=True)
    SEEDS.mkdir(parents=True)
    torch.manual_seed(0)
    torch_files()
    made_files()
    refused_files()
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    for name in ["plain", "channels_last", "steps", "bytes", "shuffle_slice_pad", "gate_norm_pool", "swish_script", "int8_weights", "unknown_ops"]:
        shutil.copy(OUT / f"{name}.onnx", SEEDS)
    print(f"{len(expected)} files, {sum(f.stat().st_size for f in OUT.iterdir())} bytes")


main()
