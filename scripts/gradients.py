#!/usr/bin/env python3
"""penjing's gradients of every parameter beside PyTorch's in float64, at 224 px with 8 images, and ten steps' losses.

usage: gradients.py MODEL... [--size 224] [--steps 10]   (needs torch, safetensors; run from the root of the repository)
MODEL is a model file, or `bundled` for the bundled EfficientNet-Lite0. Each gets a fresh head of 10 classes. Beside
each figure stands that of PyTorch in float32: of one run, and of each parameter the largest error of four, from weights
moved by one unit in the last place or not at all. With ReLU6 a gate that rounding turns over changes gradients by 1e-3 or
so; with SiLU in its place what is left is arithmetic. Images, targets and AdamW are those of goldens/train.py.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "goldens"))
import train

WITHIN = 1e-3


def penjing(nodes, weights, batches, mode):
    """Gradients by name, and the losses."""
    names = train.parameters(nodes)
    with tempfile.TemporaryDirectory() as folder:
        joined = lambda arrays: np.concatenate([np.ravel(a) for a in arrays]).astype("<f4")
        put = lambda name, arrays: joined(arrays).tofile(f"{folder}/{name}.f32")
        with open(f"{folder}/graph.json", "w") as file:
            json.dump(nodes, file)
        put("weights", [weights[k] for k in names])
        put("inputs", [image for image, _ in batches])
        put("targets", [targets for _, targets in batches])
        command = ["cargo", "run", "--quiet", "--release", "--package", "penjing", "--example", "train_step", "--"]
        printed = subprocess.run(command + [folder, mode], check=True, stdout=subprocess.PIPE, text=True).stdout
        values = np.fromfile(f"{folder}/gradients.f32", "<f4")
    learnt = [k for k in names if train.learnt(k)]
    parts = np.split(values, np.cumsum([weights[k].size for k in learnt]))
    assert parts.pop().size == 0
    gradients = {k: torch.tensor(part.reshape(weights[k].shape)) for k, part in zip(learnt, parts)}
    return gradients, [float(line) for line in printed.split()]


def summary(errors):
    worst, values = max(errors, key=errors.get), np.array(list(errors.values()))
    share = (values <= WITHIN).mean() * 100
    return f"worst {errors[worst]:.1e} ({worst}), within {WITHIN:.0e}: {share:.1f} %, median {np.median(values):.1e}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    batches = [train.batch_of(s, args.size) for s in range(args.steps)]
    for path in [train.MODEL if name == "bundled" else name for name in args.models]:
        for act in (None, "silu"):
            nodes, weights = train.to_train(path, [8, args.size, args.size, 3], act)
            for mode in ("frozen", "batch"):
                ours, losses = penjing(nodes, weights, batches, mode)
                run = lambda weights, dtype: train.step(nodes, weights, *batches[0], mode == "batch", dtype)[0]
                exact = run(weights, torch.float64)
                errors = lambda gradients: {k: train.relative(gradients(k), exact[k].grad) for k in ours}
                mine, theirs = errors(lambda k: ours[k]), []
                for r in range(train.FLOAT32_RUNS):
                    moved = run(train.nudged(weights, r), torch.float32)
                    theirs.append(errors(lambda k: moved[k].grad))
                largest = {k: max(run[k] for run in theirs) for k in ours}
                print(f"{os.path.basename(path)}, {act or 'relu6'}, {mode} statistics, {len(ours)} parameters")
                print("  penjing        ", summary(mine))
                print("  PyTorch float32", summary(theirs[0]))
                print("  the worst of 4 ", summary(largest))
                for name, bound in (("one run", theirs[0]), ("the worst of 4", largest)):
                    kept = [mine[k] <= max(2 * bound[k], WITHIN) for k in ours]
                    print(f"  penjing within {WITHIN:.0e} or twice {name}: {100 * np.mean(kept):.1f} %", flush=True)
                if act:
                    continue
                rounded = lambda dtype: train.losses(nodes, weights, mode == "batch", "adamw", dtype, batches)
                print("  loss of step   float64  penjing  PyTorch float32", flush=True)
                for s, values in enumerate(zip(rounded(torch.float64), losses, rounded(torch.float32))):
                    print(f"  {s:12}", *(f"{v:9.5f}" for v in values), flush=True)


if __name__ == "__main__":
    main()
