#!/usr/bin/env python3
"""Golden logits of TensorFlow Lite classifiers, from LiteRT, on inputs that penjing's test draws in the same way.

usage: tflite.py WEIGHTS [OUT]
WEIGHTS is the folder with mobilenetv1-0.25-float-tflite, mlperf-tiny and coral-tflite. Needs ai-edge-litert, numpy, safetensors.

The softmax at the end is left out: it is the tensor before it that is read, of quantized files as real numbers. Inputs are
bytes, as of a photo: files of floats get them normalized as their pixels contract says, files of integers as they are.
"""
import os
import sys

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from safetensors.numpy import save_file

WEIGHTS = sys.argv[1]
OUT = sys.argv[2] if len(sys.argv) > 2 else "crates/penjing/tests/goldens/tflite/published.safetensors"
SEEDS = (1, 2)
# Of files of floats: mean and deviation.
FILES = {
    "mobilenetv1-0.25-float-tflite/mobilenet_v1_0.25_224_1_default_1.tflite": (127.5, 127.5),
    "mobilenetv1-0.25-float-tflite/mobilenet_v1_0.25_224_quant.tflite": None,
    "mlperf-tiny/pretrainedResnet.tflite": (0.0, 1.0),
    "mlperf-tiny/pretrainedResnet_quant.tflite": None,
    "mlperf-tiny/vww_96_float.tflite": (0.0, 255.0),
    "mlperf-tiny/vww_96_int8.tflite": None,
    "coral-tflite/tf2_mobilenet_v2_1.0_224_ptq.tflite": None,
}


def split_mix(seed, count):
    """SplitMix64's outputs, as numpy uint64."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = state
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def picture(seed, size):
    """[size,size,3] bytes: a coarse picture of 8 x 8 colours, for noise looks the same to every network."""
    colours = (split_mix(seed, 8 * 8 * 3) >> np.uint64(56)).astype(np.uint8).reshape(8, 8, 3)
    at = np.arange(size) * 8 // size
    return colours[at][:, at]


tensors, steps = {}, {}
for name, normal in FILES.items():
    # Without fused kernels of its own, so that the tensor before the softmax is kept.
    net = Interpreter(os.path.join(WEIGHTS, name), experimental_preserve_all_tensors=True,
                      experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    net.allocate_tensors()
    taken, = net.get_input_details()
    size = taken["shape"][1]
    softmax = next(op for op in reversed(net._get_ops_details()) if op["op_name"] == "SOFTMAX")
    given = next(t for t in net.get_tensor_details() if t["index"] == softmax["inputs"][0])
    rows = []
    for seed in SEEDS:
        x = picture(seed, size)
        if normal is not None:
            x = (x.astype(np.float32) - np.float32(normal[0])) / np.float32(normal[1])
        elif taken["dtype"] == np.int8:
            x = (x.astype(np.int16) - 128).astype(np.int8)
        net.set_tensor(taken["index"], x[None])
        net.invoke()
        logits = net.get_tensor(given["index"]).reshape(-1)
        if normal is None:
            scale, zero_point = given["quantization"]
            logits = (np.float32(scale) * (logits.astype(np.int32) - zero_point)).astype(np.float32)
            steps[name] = scale
        rows.append(logits)
    key = os.path.basename(name).removesuffix(".tflite")
    tensors[key] = np.stack(rows)
    tensors[f"{key}.step"] = np.array([steps.get(name, 0.0)], np.float32)
    print(key, tensors[key].shape, tensors[key].argmax(1), tensors[key].min(), tensors[key].max(), steps.get(name))
save_file(tensors, OUT, metadata={"ai-edge-litert": ai_edge_litert.__version__})
