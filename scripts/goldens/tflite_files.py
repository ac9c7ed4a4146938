#!/usr/bin/env python3
"""Small TensorFlow Lite files, whole and hostile, and what they should yield.

usage: tflite_files.py [OUT]
Needs ai-edge-litert and numpy. Files that can be run have their logits from LiteRT in expected.json, the others the words
that the error must have.
"""
import json
import os
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as s
from ai_edge_litert.interpreter import Interpreter, OpResolverType

OUT = sys.argv[1] if len(sys.argv) > 1 else "crates/penjing/tests/goldens/tflite"
TYPES = {"float32": s.TensorType.FLOAT32, "float16": s.TensorType.FLOAT16, "int8": s.TensorType.INT8,
         "uint8": s.TensorType.UINT8, "int32": s.TensorType.INT32}
OPS = s.BuiltinOperator
rng = np.random.default_rng(5)


class Net:
    def __init__(self):
        self.model, self.graph = s.ModelT(), s.SubGraphT()
        self.model.version = 3
        self.model.subgraphs = [self.graph]
        self.model.buffers = [s.BufferT()]
        self.model.operatorCodes = []
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name, shape, kind="float32", data=None, quant=None):
        t = s.TensorT()
        t.name, t.shape, t.type, t.buffer = name, list(shape), TYPES[kind], 0
        if data is not None:
            buffer = s.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            t.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if quant is not None:
            scales, zero_points, axis = quant
            t.quantization = s.QuantizationParametersT()
            t.quantization.scale = np.asarray(scales, np.float32)
            t.quantization.zeroPoint = np.asarray(zero_points, np.int64)
            t.quantization.quantizedDimension = axis
        self.graph.tensors.append(t)
        return len(self.graph.tensors) - 1

    def constant(self, data, quant=None, name="constant"):
        return self.tensor(name, data.shape, str(data.dtype), data, quant)

    def weights(self, *shape):
        scale = 1.5 / np.sqrt(np.prod(shape[1:]))
        return self.constant((rng.standard_normal(shape) * scale).astype(np.float32), name="weights")

    def bias(self, count):
        return self.constant((rng.standard_normal(count) * 0.3).astype(np.float32), name="bias")

    def op(self, code, inputs, shape, options=None, kind="float32", quant=None, custom=None):
        number = next((i for i, c in enumerate(self.model.operatorCodes)
                       if (c.builtinCode, c.customCode) == (code, custom)), None)
        if number is None:
            c = s.OperatorCodeT()
            c.deprecatedBuiltinCode, c.builtinCode, c.version, c.customCode = min(code, 127), code, 1, custom
            number = len(self.model.operatorCodes)
            self.model.operatorCodes.append(c)
        o = s.OperatorT()
        o.opcodeIndex, o.inputs = number, inputs
        o.outputs = [self.tensor(f"result{len(self.graph.operators)}", shape, kind, quant=quant)]
        if options is not None:
            o.builtinOptionsType = getattr(s.BuiltinOptions, type(options).__name__.removesuffix("T"))
            o.builtinOptions = options
        self.graph.operators.append(o)
        return o.outputs[0]

    def bytes(self, inputs, outputs):
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def options(kind, **fields):
    made = getattr(s, f"{kind}T")()
    for name, value in fields.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made


SAME, VALID = s.Padding.SAME, s.Padding.VALID
RELU, RELU6 = s.ActivationFunctionType.RELU, s.ActivationFunctionType.RELU6


def conv(padding, stride=1, act=0, dilation=1):
    return options("Conv2DOptions", padding=padding, strideW=stride, strideH=stride, fusedActivationFunction=act,
                   dilationWFactor=dilation, dilationHFactor=dilation)


def depthwise(padding, stride, multiplier, act=0, dilation=1):
    return options("DepthwiseConv2DOptions", padding=padding, strideW=stride, strideH=stride, depthMultiplier=multiplier,
                   fusedActivationFunction=act, dilationWFactor=dilation, dilationHFactor=dilation)


def pool(padding, size, stride):
    return options("Pool2DOptions", padding=padding, filterWidth=size, filterHeight=size, strideW=stride, strideH=stride)


def every_op():
    """Each operator once at least, on 13 x 13 pixels so that SAME is uneven somewhere."""
    n = Net()
    image = n.tensor("image", [1, 13, 13, 3])
    x = n.op(OPS.MUL, [image, n.constant(np.float32([0.5, 0.6, 0.7]))], [1, 13, 13, 3], options("MulOptions"))
    x = n.op(OPS.SUB, [x, n.constant(np.float32(0.1).reshape(()))], [1, 13, 13, 3], options("SubOptions"))
    x = n.op(OPS.CONV_2D, [x, n.weights(8, 3, 3, 3), n.bias(8)], [1, 7, 7, 8], conv(SAME, 2, RELU6))
    y = n.op(OPS.DEPTHWISE_CONV_2D, [x, n.weights(1, 3, 3, 16), n.bias(16)], [1, 7, 7, 16], depthwise(SAME, 1, 2, RELU))
    y = n.op(OPS.CONV_2D, [y, n.weights(8, 1, 1, 16), n.bias(8)], [1, 7, 7, 8], conv(VALID))
    x = n.op(OPS.ADD, [x, y], [1, 7, 7, 8], options("AddOptions", fusedActivationFunction=RELU))
    pad = n.constant(np.int32([[0, 0], [1, 0], [2, 1], [0, 0]]))
    y = n.op(OPS.PAD, [x, pad], [1, 8, 10, 8], options("PadOptions"))
    y = n.op(OPS.DEPTHWISE_CONV_2D, [y, n.weights(1, 3, 3, 8), n.bias(8)], [1, 3, 4, 8], depthwise(VALID, 2, 1))
    z = n.op(OPS.PADV2, [x, pad, n.constant(np.float32(0).reshape(()))], [1, 8, 10, 8], options("PadV2Options"))
    z = n.op(OPS.MAX_POOL_2D, [z], [1, 3, 4, 8], pool(VALID, 3, 2))
    x = n.op(OPS.CONCATENATION, [y, z], [1, 3, 4, 16], options("ConcatenationOptions", axis=3))
    x = n.op(OPS.CONV_2D, [x, n.weights(16, 2, 2, 8), n.bias(16)], [1, 3, 4, 16], conv(SAME, 1, 0, 2))
    x = n.op(OPS.HARD_SWISH, [x], [1, 3, 4, 16], options("HardSwishOptions"))
    half = n.constant((rng.standard_normal((16, 1, 1, 16)) * 0.4).astype(np.float16), name="half")
    half = n.op(OPS.DEQUANTIZE, [half], [16, 1, 1, 16], options("DequantizeOptions"))
    x = n.op(OPS.CONV_2D, [x, half, n.bias(16)], [1, 3, 4, 16], conv(VALID))
    # Squeeze and excitation.
    y = n.op(OPS.MEAN, [x, n.constant(np.int32([-3, 2]))], [1, 1, 1, 16], options("ReducerOptions", keepDims=True))
    y = n.op(OPS.CONV_2D, [y, n.weights(4, 1, 1, 16), n.bias(4)], [1, 1, 1, 4], conv(VALID, 1, RELU))
    y = n.op(OPS.CONV_2D, [y, n.weights(16, 1, 1, 4), n.bias(16)], [1, 1, 1, 16], conv(VALID))
    y = n.op(OPS.LOGISTIC, [y], [1, 1, 1, 16])
    x = n.op(OPS.MUL, [y, x], [1, 3, 4, 16], options("MulOptions"))
    x = n.op(OPS.LEAKY_RELU, [x], [1, 3, 4, 16], options("LeakyReluOptions", alpha=0.2))
    x = n.op(OPS.AVERAGE_POOL_2D, [x], [1, 2, 2, 16], pool(SAME, 3, 2))
    x = n.op(OPS.SUB, [n.constant(np.float32(1).reshape(())), x], [1, 2, 2, 16], options("SubOptions"))
    x = n.op(OPS.RELU, [x], [1, 2, 2, 16])
    x = n.op(OPS.RELU6, [x], [1, 2, 2, 16])
    x = n.op(OPS.RESHAPE, [x, n.constant(np.int32([1, 64]))], [1, 64], options("ReshapeOptions", newShape=[1, 64]))
    x = n.op(OPS.FULLY_CONNECTED, [x, n.weights(6, 64), -1], [1, 6], options("FullyConnectedOptions"))
    y = n.op(OPS.SOFTMAX, [x], [1, 6], options("SoftmaxOptions", beta=1.0))
    return n.bytes([image], [y]), x


def quantized(clamped):
    """Integers, the stem's ReLU6 or ReLU only in its range; uint8 at both ends, int8 between."""
    n = Net()
    # Only the first is reached: the greatest number of the other is none of the network's own.
    top, factor = (6.0, 0.02) if clamped else (60.0, 0.005)
    image = n.tensor("image", [1, 8, 8, 3], "uint8", quant=([1 / 64], [128], 0))
    x = n.op(OPS.QUANTIZE, [image], [1, 8, 8, 3], options("QuantizeOptions"), "int8", ([1 / 64], [0], 0))
    scales = (0.02 + 0.01 * rng.random(4)).astype(np.float32)
    weight = n.constant(rng.integers(-127, 128, (4, 3, 3, 3), np.int8), (scales, np.zeros(4), 0), "weights")
    bias = n.constant(rng.integers(-3000, 9000, 4, np.int32), (scales / 64, np.zeros(4), 0), "bias")
    x = n.op(OPS.CONV_2D, [x, weight, bias], [1, 4, 4, 4], conv(SAME, 2), "int8", ([top / 255], [-128], 0))
    x = n.op(OPS.MEAN, [x, n.constant(np.int32([1, 2]))], [1, 4], options("ReducerOptions"), "int8", ([top / 255], [-128], 0))
    weight = n.constant(rng.integers(-127, 128, (5, 4), np.int8), ([factor], [0], 0), "weights")
    bias = n.constant(rng.integers(-900, 900, 5, np.int32), ([factor * top / 255], [0], 0), "bias")
    x = n.op(OPS.FULLY_CONNECTED, [x, weight, bias], [1, 5], options("FullyConnectedOptions"), "int8", ([0.15], [3], 0))
    y = n.op(OPS.SOFTMAX, [x], [1, 5], options("SoftmaxOptions", beta=1.0), "int8", ([1 / 256], [-128], 0))
    y = n.op(OPS.QUANTIZE, [y], [1, 5], options("QuantizeOptions"), "uint8", ([1 / 256], [0], 0))
    return n.bytes([image], [y]), x


def tiny(change=lambda n: None, inputs=None, outputs=None, shape=(1, 4, 4, 3)):
    """A classifier of two operators, with something changed."""
    n = Net()
    image = n.tensor("image", shape)
    x = n.op(OPS.CONV_2D, [image, n.weights(4, 3, 3, 3), n.bias(4)], [1, 2, 2, 4], conv(VALID))
    y = n.op(OPS.MEAN, [x, n.constant(np.int32([1, 2]))], [1, 4], options("ReducerOptions"))
    n.image, n.map, n.result = image, x, y
    change(n)
    return n.bytes(inputs(n) if inputs else [image], outputs(n) if outputs else [n.result])


def unknown(n):
    x = n.op(OPS.TANH, [n.map], [1, 2, 2, 4])
    x = n.op(OPS.TANH, [x], [1, 2, 2, 4])
    x = n.op(OPS.CUSTOM, [x], [1, 2, 2, 4], custom=b"Sharpen")
    n.graph.operators[1].inputs[0] = n.op(OPS.GELU, [x], [1, 2, 2, 4])
    n.graph.operators.append(n.graph.operators.pop(1))


def cycle(n):
    n.graph.operators[0].inputs[0] = n.map


def swapped(n):
    n.graph.operators.reverse()


def set_tensor(**fields):
    def change(n):
        for name, value in fields.items():
            setattr(n.graph.tensors[n.graph.operators[0].inputs[1]], name, value)
    return change


def short(n):
    n.model.buffers[1].data = n.model.buffers[1].data[:-1]


def behind(n):
    n.model.buffers[1].offset, n.model.buffers[1].size, n.model.buffers[1].data = 400, 432, None


def integers(n):
    weights = n.graph.tensors[n.graph.operators[0].inputs[1]]
    weights.type = s.TensorType.INT32


def sigmoid(n):
    n.result = n.op(OPS.LOGISTIC, [n.result], [1, 4])


def reshaped(n):
    n.result = n.op(OPS.RESHAPE, [n.map], [1, 4, 4], options("ReshapeOptions", newShape=[1, 4, 4]))


def stride(n):
    n.graph.operators[0].builtinOptions.strideH = 0


def lies(n):
    n.graph.tensors[n.map].shape = [1, 3, 2, 4]


def code(n):
    n.graph.operators[1].opcodeIndex = 77


def version(n):
    n.model.version = 2


HOSTILE = {
    "unknown_ops": (tiny(unknown), ["TANH (2 times)", "GELU", "the custom operator `Sharpen`"]),
    "cycle": (tiny(cycle), ["operator 0, CONV_2D", "takes tensor 3 `result0`, which nothing before it makes"]),
    "swapped": (tiny(swapped), ["operator 0, MEAN", "which nothing before it makes"]),
    "huge_weights": (tiny(set_tensor(shape=[2**31 - 1] * 4)), ["`weights`", "has a shape that overflows"]),
    "large_weights": (tiny(set_tensor(shape=[2**20, 3, 3, 3])), ["`weights`", "has 432 bytes of data"]),
    "negative": (tiny(set_tensor(shape=[-4, 3, 3, 3])), ["`weights`", "has an extent of -4"]),
    "rank": (tiny(set_tensor(shape=[1] * 9)), ["`weights`", "has 9 dimensions"]),
    "no_buffer": (tiny(set_tensor(buffer=99)), ["refers to buffer 99, which is not there"]),
    "int4": (tiny(set_tensor(type=s.TensorType.INT4)), ["holds elements of type 17"]),
    "short": (tiny(short), ["`weights`", "has 431 bytes of data"]),
    "behind": (tiny(behind), ["`weights`", "is stored outside of the tables"]),
    "integers": (tiny(integers), ["holds integers and does not say what they stand for"]),
    "sigmoid": (tiny(sigmoid), ["ends with a sigmoid"]),
    "reshaped": (tiny(reshaped), ["makes [1, 4, 4] of [1, 2, 2, 4]"]),
    "stride": (tiny(stride), ["stride [0, 1]"]),
    "lies": (tiny(lies), ["gives [1, 2, 2, 4] where the file says [1, 3, 2, 4]"]),
    "code": (tiny(code), ["refers to kind 77 of operators"]),
    "version": (tiny(version), ["schema 2; version 3 is read"]),
    "map": (tiny(outputs=lambda n: [n.map]), ["ends with a map of [1, 2, 2, 4]"]),
    "two_outputs": (tiny(outputs=lambda n: [n.map, n.result]), ["has 1 inputs and 2 outputs"]),
    "no_input": (tiny(inputs=lambda n: []), ["has 0 inputs and 1 outputs"]),
    "image": (tiny(inputs=lambda n: [n.graph.operators[0].inputs[1]]), ["expected one image"]),
    "large_image": (tiny(shape=(1, 2**15, 2**14, 3)), ["outside 1..="]),
    "nothing_made": (tiny(outputs=lambda n: [n.image]), ["ends with a map"]),
}


def logits(content, tensor, x):
    net = Interpreter(model_content=content, experimental_preserve_all_tensors=True,
                      experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    net.allocate_tensors()
    net.set_tensor(net.get_input_details()[0]["index"], x)
    net.invoke()
    given = next(t for t in net.get_tensor_details() if t["index"] == tensor)
    scale, zero_point = given["quantization"]
    values = net.get_tensor(tensor).reshape(-1)
    return values if scale == 0 else scale * (values.astype(np.float32) - zero_point)


os.makedirs(OUT, exist_ok=True)
expected = {}
for name, (content, tensor) in {"every_op": every_op(), "saturated_relu6": quantized(True),
                                "saturated_relu": quantized(False)}.items():
    size = 13 if name == "every_op" else 8
    # What the test draws too.
    x = (np.arange(size * size * 3, dtype=np.int64) * 7919 % 251).astype(np.uint8).reshape(1, size, size, 3)
    given = (x.astype(np.float32) - np.float32(127.5)) / np.float32(127.5) if name == "every_op" else x
    values = logits(content, tensor, given)
    print(name, len(content), values)
    expected[name] = {"logits": [float(v) for v in values]}
    open(os.path.join(OUT, f"{name}.tflite"), "wb").write(content)
for name, (content, words) in HOSTILE.items():
    expected[name] = {"error": words}
    open(os.path.join(OUT, f"{name}.tflite"), "wb").write(content)
json.dump(expected, open(os.path.join(OUT, "expected.json"), "w"), indent=1)
