#!/usr/bin/env python3
"""Times one inference engine on one network: what `cargo xtask bench peers` runs, a process for each figure.

usage: measure.py ENGINE STEM THREADS SECONDS OUTPUT      (ENGINE: onnxruntime, openvino, ncnn, MNN or litert)

Runs STEM.onnx, in f32 or in 8 bits (ncnn: what pnnx makes of STEM.pt, MNN: what its converter makes of STEM.onnx, litert:
STEM.tflite, on zeros), on STEM.input.f32 (1x3xSIZExSIZE), writes the result to OUTPUT in the same way, and prints one line
{"version": "1.2.3", "ms": 4.56}: the median of what SECONDS hold after a tenth of them to warm up.
"""
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np

ENGINE, STEM, THREADS, SECONDS, OUTPUT = sys.argv[1:6]
THREADS = int(THREADS)
x = np.fromfile(f"{STEM}.input.f32", "<f4")
SIZE = math.isqrt(x.size // 3)
x = x.reshape(1, 3, SIZE, SIZE)


def convert(made, *command):
    """Runs a converter unless its file is there."""
    if not os.path.exists(made):
        done = subprocess.run(command, capture_output=True, text=True)
        if not os.path.exists(made):
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            sys.exit(f"the converter ended with {done.returncode} and made no model: {''.join(last)}")


def onnxruntime():
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(f"{STEM}.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def openvino():
    import openvino as ov

    options = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(f"{STEM}.onnx", "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    return lambda: request.infer(share_outputs=True)[0]


def ncnn():
    import ncnn

    model = f"{STEM}.ncnn"
    pnnx = os.path.join(os.path.dirname(sys.executable), "pnnx")
    convert(f"{model}.param", pnnx, f"{STEM}.pt", f"inputshape=[1,3,{SIZE},{SIZE}]", "fp16=0")
    net = ncnn.Net()
    net.opt.num_threads = THREADS
    for option in dir(net.opt):
        if option.startswith(("use_fp16_", "use_bf16_")):
            setattr(net.opt, option, False)
    net.load_param(f"{model}.param")
    net.load_model(f"{model}.bin")
    image = ncnn.Mat(x[0])

    def infer():
        extractor = net.create_extractor()
        extractor.input("in0", image)
        return np.array(extractor.extract("out0")[1])

    return infer


def MNN():
    import MNN.expr as expr
    import MNN.nn as nn

    model = f"{STEM}.mnn"
    # Not by the program `mnnconvert`: it installs a package and reports what it did to its maker's server.
    converter = [sys.executable, "-c", "import _tools, sys; _tools.mnnconvert(sys.argv)"]
    convert(model, *converter, "-f", "ONNX", "--modelFile", f"{STEM}.onnx", "--MNNModel", model, "--bizCode", "x")
    runtime = nn.create_runtime_manager(({"backend": "CPU", "numThread": THREADS, "precision": "high"},))
    module = nn.load_module_from_file(model, ["x"], ["y"], runtime_manager=runtime)
    image = expr.const(x, list(x.shape), expr.NCHW)
    return lambda: module.forward(image).read()


def litert():
    from ai_edge_litert.interpreter import Interpreter

    if not os.path.exists(f"{STEM}.tflite"):
        sys.exit("no file was given for it")
    interpreter = Interpreter(f"{STEM}.tflite", num_threads=THREADS)
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))

    def infer():
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return infer


# Of another name than the engine.
PACKAGES = {"litert": "ai-edge-litert"}
ENGINES = {"onnxruntime": onnxruntime, "openvino": openvino, "ncnn": ncnn, "MNN": MNN, "litert": litert}
infer = ENGINES[ENGINE]()
budget = float(SECONDS)
start = time.perf_counter()
while time.perf_counter() - start < budget / 10:
    infer()
start, times = time.perf_counter(), []
while time.perf_counter() - start < budget or len(times) < 5:
    run = time.perf_counter()
    infer()
    times.append(time.perf_counter() - run)
np.asarray(infer(), "<f4").tofile(OUTPUT)
print(json.dumps({"version": importlib.metadata.version(PACKAGES.get(ENGINE, ENGINE)), "ms": statistics.median(times) * 1e3}))
sys.stdout.flush()
