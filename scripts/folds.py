#!/usr/bin/env python3
"""penjing and PyTorch where the test photos are few: every training photo held out once.

usage: folds.py DATA FINETUNE WEIGHTS [--folds 5] [--mode full]     (run from the repository's root after `cargo build --release`)
DATA has train/ with a folder for each class; FINETUNE is a script of PyTorch's way that is called with a folder of train/ and
test/, WEIGHTS and the mode, and prints `… top1 PERCENT train_s SECONDS …`; penjing trains by its defaults, nothing cached.
Prints photos that were classified wrongly, and seconds, of each fold and in all.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

PENJING = "target/release/penjing"


def folds(data, count, place):
    """Folders of train/ and test/ with links to the photos, each class dealt out by a seed."""
    random.seed(0)
    for label in sorted(folder for folder in (data / "train").iterdir() if folder.is_dir()):
        photos = sorted(label.iterdir())
        random.shuffle(photos)
        for fold in range(count):
            for index, photo in enumerate(photos):
                part = "test" if index % count == fold else "train"
                folder = place / str(fold) / part / label.name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / photo.name).symlink_to(photo.resolve())
    return [place / str(fold) for fold in range(count)]


def penjing(data, model):
    start = time.perf_counter()
    train = [PENJING, "--quiet", "train", str(data), "-o", str(model), "--no-cache"]
    subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    answer = subprocess.run([PENJING, "--json", "--quiet", "eval", str(model), str(data / "test")], check=True, stdout=subprocess.PIPE)
    report = json.loads(answer.stdout)
    return round(report["n"] * (1 - report["top1"])), seconds


def pytorch(script, data, weights, mode, count):
    output = subprocess.run([sys.executable, script, str(data), weights, mode], check=True, stdout=subprocess.PIPE)
    words = output.stdout.decode().split()
    after = lambda word: float(words[words.index(word) + 1])
    return round(count * (1 - after("top1") / 100)), after("train_s")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("data", type=pathlib.Path)
    arguments.add_argument("finetune")
    arguments.add_argument("weights")
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--mode", default="full")
    a = arguments.parse_args()
    totals = [0, 0, 0.0, 0, 0.0]
    with tempfile.TemporaryDirectory() as place:
        for fold in folds(a.data, a.folds, pathlib.Path(place)):
            count = sum(1 for photo in (fold / "test").rglob("*") if photo.is_file())
            ours = penjing(fold, pathlib.Path(place) / f"{fold.name}.penjing")
            theirs = pytorch(a.finetune, fold, a.weights, a.mode, count)
            row = [count, *ours, *theirs]
            totals = [total + value for total, value in zip(totals, row)]
            print("{} photos: penjing {} wrong, {:.1f} s; PyTorch {} wrong, {:.1f} s".format(*row), flush=True)
    print("in all {} photos: penjing {} wrong, {:.1f} s; PyTorch {} wrong, {:.1f} s".format(*totals))


if __name__ == "__main__":
    main()
