#!/usr/bin/env python3
"""What `penjing weights advise` says beside what a head on each backbone reaches: Kendall's τ of the two rankings.

usage: advise.py DATA… -- MODEL…     (run from the repository's root after `cargo build --release`; DATA has train/ and test/)
"""
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

PENJING = "target/release/penjing"


def penjing(*args):
    return json.loads(subprocess.run([PENJING, "--json", "--quiet", *args], check=True, stdout=subprocess.PIPE).stdout)


def tau(a, b):
    """Kendall's τ-b: pairs in one order less those in the other, ties counting half."""
    sign = lambda x, y: (x > y) - (x < y)
    pairs = [(sign(a[i], a[j]), sign(b[i], b[j])) for i, j in itertools.combinations(range(len(a)), 2)]
    known = [sum(1 for pair in pairs if pair[side]) for side in (0, 1)]
    return sum(x * y for x, y in pairs) / (known[0] * known[1]) ** 0.5


split = sys.argv.index("--")
sets, models = sys.argv[1:split], sys.argv[split + 1 :]
with tempfile.TemporaryDirectory() as folder:
    os.environ["PENJING_CACHE"] = f"{folder}/cache"
    for data in sets:
        advised = {row["name"]: row for row in penjing("weights", "advise", data, *models)}
        reached = {}
        for model in models:
            out = f"{folder}/m.penjing"
            trained = penjing("train", data, "-o", out, "--recipe", "head", "--backbone", model, "--force")
            reached[model] = trained["test_top1"]
        print(f"\n{pathlib.Path(data).name}\n\n| backbone | LogME | left out | head, test top-1 | latency |\n|---|---|---|---|---|")
        for model in sorted(models, key=lambda model: -advised[model]["logme"]):
            row = advised[model]
            print(f"| {pathlib.Path(model).stem} | {row['logme']:.3f} | {100 * row['left_out_top1']:.1f} % | "
                  f"{100 * reached[model]:.2f} % | {row['latency_ms']:.1f} ms |", flush=True)
        for what in ("logme", "left_out_top1"):
            t = tau([advised[model][what] for model in models], [reached[model] for model in models])
            print(f"Kendall's τ of {what} and the head's accuracy: {t:.2f}", flush=True)
