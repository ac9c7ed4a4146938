#!/usr/bin/env python3
"""Images/s and peak memory of a training step beside PyTorch: batch 32, 224 px, 10 classes, interleaved.

usage: train_speed.py [--rounds 3]     (run from the repository's root after `cargo build --release`; needs torch and timm,
and torch.compile a C++ compiler)
Each measurement is a process of its own and gives its median step, after what the first ones compile and allocate;
printed are the median of the processes, the least and the greatest, and the median of the rounds' ratios. Both sides take
steps of SGD with momentum 0.9 under the batch's statistics, all threads.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

PENJING = "target/release/penjing"
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


def penjing(arch):
    command = [PENJING, "--json", "bench", "--arch", arch, "--classes", "10", "--train", "--seconds", "5"]
    result = json.loads(measured(command)[0])
    return result["train_images_per_s"], result["train_peak_bytes"]


def cell(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print("Images a second, and MiB at the peak; ÷ is against the better of PyTorch's two.\n")
    print("| network | penjing | PyTorch eager | compiled | penjing ÷ PyTorch | penjing's MiB | eager | compiled | ÷ |")
    print("|---|---|---|---|---|---|---|---|---|")
    for arch, name in ARCHS.items():
        runs = []
        for _ in range(rounds):
            run = [penjing(arch)]
            for mode in ("eager", "compile"):
                text, peak = measured([sys.executable, __file__, "--pytorch", name, mode])
                run.append((float(text.split()[-1]), peak))
            runs.append(run)
        speeds = [[speed for speed, _ in run] for run in runs]
        peaks = [[peak for _, peak in run] for run in runs]
        faster = statistics.median(ours / max(theirs) for ours, *theirs in speeds)
        smaller = statistics.median(ours / min(theirs) for ours, *theirs in peaks)
        speeds = " | ".join(cell(column) for column in zip(*speeds))
        peaks = " | ".join(f"{statistics.median(column) / 2**20:.0f}" for column in zip(*peaks))
        print(f"| {arch} | {speeds} | {faster:.2f} | {peaks} | {smaller:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pytorch"]:
        pytorch(*sys.argv[2:])
    else:
        main()
