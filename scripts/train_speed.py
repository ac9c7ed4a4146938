#!/usr/bin/env python3
"""Images/s and peak memory of a training step beside PyTorch: batch 32, 224 px, 10 classes, interleaved.

usage: train_speed.py [--penjing PROGRAM] [--rounds 5]     (needs torch, timm; torch.compile a C++ compiler)
Without --penjing only PyTorch runs. Each measurement is a process of its own and gives its median step, after what the
first ones compile and allocate; printed are the median of the processes, the least and the greatest. Both sides take
steps of SGD with momentum 0.9 under the batch's statistics, all threads.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ARCHS = {"mobilenet_v2": "mobilenetv2_100", "efficientnet_lite0": "efficientnet_lite0"}


def pytorch(name, mode):
    """Images/s of the median of six steps after two."""
    import time

    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10).to(memory_format=torch.channels_last).train()
    tuner = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    run = torch.compile(model) if mode == "compile" else model
    x = torch.rand(32, 3, 224, 224).to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (32,))
    times = []
    for _ in range(8):
        start = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(run(x), y)
        tuner.zero_grad()
        loss.backward()
        tuner.step()
        times.append(time.perf_counter() - start)
    print(32 / statistics.median_high(times[2:]))


def measured(command):
    """What a process printed, and its peak resident bytes."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{command} failed")
        out.seek(0)
        return out.read().decode(), usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--penjing")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for arch, name in ARCHS.items():
        runs = {}
        for _ in range(args.rounds):
            for mode in ("eager", "compile"):
                text, peak = measured([sys.executable, __file__, "--pytorch", name, mode])
                runs.setdefault(f"PyTorch {mode}", []).append((float(text.split()[-1]), peak))
            if args.penjing:
                options = ["--arch", arch, "--classes", "10", "--train", "--seconds", "5", "--json"]
                text, _ = measured([args.penjing, "bench"] + options)
                result = json.loads(text)
                runs.setdefault("penjing", []).append((result["train_images_per_s"], result["train_peak_bytes"]))
        for who, values in runs.items():
            speed, peak = zip(*values)
            print(f"{arch:20} {who:16} {statistics.median(speed):8.1f} images/s ({min(speed):.1f} to {max(speed):.1f})"
                  f" {statistics.median(peak) / 2**20:8.0f} MiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pytorch"]:
        pytorch(*sys.argv[2:])
    else:
        main()
