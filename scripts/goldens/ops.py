#!/usr/bin/env python3
"""Golden results of every operation, from PyTorch: one small safetensors file.

usage: ops.py [OUT]        (needs torch, numpy, safetensors)
Maps are stored as [N,H,W,C], convolution weights as [O,kh,kw,I].
"""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = sys.argv[1] if len(sys.argv) > 1 else "crates/penjing-runtime/tests/goldens/ops.safetensors"
torch.manual_seed(7)
tensors = {}


def nhwc(t):
    if t.dim() == 4:
        return t.permute(0, 2, 3, 1).contiguous()
    return t.reshape(t.shape[0], 1, 1, -1).contiguous() if t.dim() == 2 else t.contiguous()


def case(name, y, x=None, **named):
    tensors[f"{name}.y"] = nhwc(y)
    if x is not None:
        tensors[f"{name}.x"] = nhwc(x)
    for key, value in named.items():
        tensors[f"{name}.{key}"] = nhwc(value) if value.dim() == 4 else value.contiguous()


def conv(name, x, out, kernel, stride=1, padding=(0, 0, 0, 0), dilation=1, groups=1):
    kh, kw = kernel
    w = torch.randn(out, x.shape[1] // groups, kh, kw) * 0.3
    b = torch.randn(out)
    top, bottom, left, right = padding
    y = F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride, 0, dilation, groups)
    case(name, y, x, weight=w, bias=b)


x = torch.randn(2, 6, 9, 7)
conv("pointwise", x, 10, (1, 1))
conv("dense_same", x, 5, (3, 3), 2, (0, 1, 1, 1))
conv("dense_uneven", x, 20, (2, 4), (1, 2), (1, 0, 0, 3))
conv("dilated", x, 4, (3, 3), 1, (2, 2, 2, 2), 2)
conv("grouped", x, 9, (3, 3), 1, (1, 1, 1, 1), 1, 3)
conv("depthwise3", x, 6, (3, 3), 1, (1, 1, 1, 1), 1, 6)
conv("depthwise5_s2", x, 6, (5, 5), 2, (1, 2, 2, 2), 1, 6)
conv("depthwise_multiplier", x, 12, (3, 3), 1, (1, 1, 1, 1), 1, 6)

gamma, beta, mean, var = torch.randn(6), torch.randn(6), torch.randn(6), torch.rand(6) * 0.01
case("batch_norm", F.batch_norm(x, mean, var, gamma, beta, eps=1e-3), x, gamma=gamma, beta=beta, mean=mean, var=var)

wide = x * 4
for name, act in {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda t: F.leaky_relu(t, 0.1),
    "h_swish": F.hardswish,
    "h_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
}.items():
    case(name, act(wide), wide)

for name, kernel, stride, padding, ceil in [
    ("pool3_s2", 3, 2, 0, False),
    ("pool3_s2_ceil", 3, 2, 0, True),
    ("pool3_s2_pad_ceil", 3, 2, 1, True),
    ("pool2_s3_ceil", 2, 3, 1, True),
]:
    case(f"max_{name}", F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil), x)
    case(f"avg_{name}", F.avg_pool2d(x, kernel, stride, padding, ceil, False), x)
    case(f"avg_{name}_counted", F.avg_pool2d(x, kernel, stride, padding, ceil, True), x)

case("global_avg_pool", x.mean((2, 3)), x)
case("channel_shuffle", F.channel_shuffle(x, 3), x)
case("softmax", F.softmax(x, 1), x)
other = torch.randn(2, 6, 9, 7)
case("add_relu", F.relu(x + other), x, other=other)
case("mul", x * other, x, other=other)
scale = torch.rand(2, 6)
case("scale_channels", x * scale[:, :, None, None], x, other=scale[:, :, None, None])
case("concat_slice", torch.cat([x, other, x[:, 1:4]], 1)[:, 4:14], x, other=other)
case("pad", F.pad(x, (3, 0, 1, 2)), x)
w, b = torch.randn(11, 63) * 0.1, torch.randn(11)
flat = torch.randn(2, 7, 3, 3)
# A linear layer after a flatten, seen from NHWC: columns go from (c, h, w) to (h, w, c).
case(
    "flatten_linear",
    F.linear(flat.flatten(1), w, b),
    flat,
    weight=w.reshape(11, 7, 3, 3).permute(0, 2, 3, 1).reshape(11, 63),
    bias=b,
)

# The textbook depthwise-separable layer: 1x3x32x32 -> 16 channels, biases, no BatchNorm.
image = torch.randn(1, 3, 32, 32)
depthwise = torch.nn.Conv2d(3, 3, 3, padding=1, groups=3)
pointwise = torch.nn.Conv2d(3, 16, 1)
with torch.no_grad():
    y = pointwise(depthwise(image))
case(
    "separable",
    y,
    image,
    **{
        f"{layer}.{name}": value.detach()
        for layer, module in {"depthwise": depthwise, "pointwise": pointwise}.items()
        for name, value in module.named_parameters()
    },
)

# A small residual network: conv-bn-relu6, depthwise-bn-relu6, project-bn, add, squeeze-excite.
seed = torch.randn(1, 8, 12, 12)
params = {}


def layer(name, out, inputs, kernel, groups=1):
    params[f"{name}.weight"] = torch.randn(out, inputs // groups, kernel, kernel) * 0.4
    params[f"{name}.bn.gamma"] = torch.rand(out) + 0.5
    params[f"{name}.bn.beta"] = torch.randn(out) * 0.2
    params[f"{name}.bn.mean"] = torch.randn(out) * 0.2
    params[f"{name}.bn.var"] = torch.rand(out) + 0.1


def apply(name, x, groups=1, padding=0):
    x = F.conv2d(x, params[f"{name}.weight"], None, 1, padding, 1, groups)
    p = [params[f"{name}.bn.{k}"] for k in ("mean", "var", "gamma", "beta")]
    return F.batch_norm(x, *p, eps=1e-5)


layer("expand", 24, 8, 1)
layer("depthwise", 24, 24, 3, 24)
layer("project", 8, 24, 1)
params["gate.weight"] = torch.randn(8, 8, 1, 1)
params["gate.bias"] = torch.randn(8)
y = F.relu6(apply("expand", seed))
y = F.relu6(apply("depthwise", y, 24, 1))
y = apply("project", y) + seed
gate = F.hardsigmoid(F.conv2d(y.mean((2, 3), keepdim=True), params["gate.weight"], params["gate.bias"]))
case("block", y * gate, seed, **params)

save_file(tensors, OUT, metadata={"torch": torch.__version__})
print(f"{len(tensors)} tensors to {OUT}")
