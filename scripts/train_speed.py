#!/usr/bin/env python3
"""Images/s and peak memory of a training step beside PyTorch, Burn and candle: 224 px, 10 classes, interleaved.

usage: train_speed.py [--rounds 3] [--programs DIR]     (run from the repository's root after `cargo build --release`; needs
torch and timm, and torch.compile a C++ compiler; DIR holds the programs `burn` and `candle` of benches/peers, if any)
Each measurement is a process of its own and gives its median step, after what the first ones compile and allocate;
printed are the median of the processes, the least and the greatest, and the medians of the rounds' ratios. All take
steps of SGD under the batch's statistics, all threads; all but candle of 32 photos and with momentum 0.9.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

PENJING = "target/release/penjing"
# Measured steps and photos a step: candle keeps 0.64 GB for each, and is no faster with more of them.
PROGRAMS = {"burn": ("2", "32"), "candle": ("1", "8")}
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


def program(path, arch):
    command = [path, arch, str(len(os.sched_getaffinity(0))), *PROGRAMS[os.path.basename(path)]]
    try:
        text, peak = measured(command)
    except RuntimeError as error:
        print(f"{error}; it may want more memory", file=sys.stderr)
        return float("nan"), 0
    return json.loads(text)["images_per_s"], peak


def cell(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", default="")
    args = parser.parse_args()
    programs = [os.path.join(args.programs, name) for name in PROGRAMS]
    programs = [path for path in programs if args.programs and os.path.exists(path)]
    others = [os.path.basename(path) for path in programs]
    print("Images a second, and MiB at the peak; ÷ is against the better of PyTorch's two, then against each of the others.\n")
    names = ["penjing", "PyTorch eager", "compiled", *others]
    columns = ["network", *names, "÷ PyTorch", *(f"÷ {name}" for name in others), *(f"{name} MiB" for name in names), "÷ PyTorch"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for arch, name in ARCHS.items():
        runs = []
        for _ in range(args.rounds):
            run = [penjing(arch)]
            for mode in ("eager", "compile"):
                text, peak = measured([sys.executable, __file__, "--pytorch", name, mode])
                run.append((float(text.split()[-1]), peak))
            runs.append(run + [program(path, arch) for path in programs])
        speeds, peaks = ([[of[part] for of in run] for run in runs] for part in (0, 1))
        ratio = lambda theirs: f"{statistics.median(run[0] / theirs(run) for run in speeds):.2f}"
        ratios = [ratio(lambda run: max(run[1:3])), *(ratio(lambda run: run[at]) for at in range(3, len(names)))]
        smaller = statistics.median(run[0] / min(run[1:3]) for run in peaks)
        mib = [f"{statistics.median(column) / 2**20:.0f}" for column in zip(*peaks)]
        cells = [arch, *(cell(column) for column in zip(*speeds)), *ratios, *mib, f"{smaller:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pytorch"]:
        pytorch(*sys.argv[2:])
    else:
        main()
