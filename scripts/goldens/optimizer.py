#!/usr/bin/env python3
"""Golden values of the optimizers, by PyTorch.

usage: optimizer.py > crates/penjing/tests/goldens/optimizer.json

Three parameters learn for five steps with clipped gradients: a weight (decays), a bias and a γ (do not), each with a
learning rate of its own. The gradients come from a linear congruential generator that the test in
`train/optimizer.rs` repeats.
"""
import json

import torch

SIZES, RATES, DECAYS = [11, 3, 2], [1.0, 0.5, 0.1], [0.1, 0.0, 0.0]
LR, CLIP, STEPS = 0.05, 2.0, 5


def stream():
    state = 1
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield ((state >> 8) - 2**23) / 2**22


def run(make):
    numbers = stream()
    parameters = [torch.nn.Parameter(torch.tensor([next(numbers) for _ in range(size)])) for size in SIZES]
    optimizer = make([dict(params=[p], lr=LR * r, weight_decay=d) for p, r, d in zip(parameters, RATES, DECAYS)])
    norms, values = [], []
    for step in range(STEPS):
        # Some steps are below the limit, some above.
        size = 0.05 if step % 2 else 1.0
        for p in parameters:
            p.grad = torch.tensor([next(numbers) * size for _ in range(len(p))])
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, CLIP).item())
        optimizer.step()
        values.append([v for p in parameters for v in p.tolist()])
    return dict(norms=norms, values=values)


print(json.dumps({
    "sgd": run(lambda groups: torch.optim.SGD(groups, momentum=0.9)),
    "nesterov": run(lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True)),
    "adamw": run(lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)),
}))
