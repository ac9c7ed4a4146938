#!/usr/bin/env python3
"""Golden values of training's small functions, from PyTorch in float64: prints the tables in the tests of
crates/penjing-kernels/src/act.rs (slopes) and src/update.rs (values after every optimizer step).

usage: updates.py        (needs torch)
"""
import torch
import torch.nn.functional as F

AT = [-4.0, -3.0, -1.5, 0.0, 0.5, 2.0, 3.0, 6.0, 7.0]
VALUES = [1.0, -2.0, 0.5, 3.0]
# The gradient of a value is its product with this.
CURVATURE = torch.tensor([1.0, 0.1, 2.0, -0.5], dtype=torch.float64)
STEPS = 5


def row(values):
    return "[" + ", ".join(f"{v:.7g}" for v in values) + "],"


def slopes():
    for name, act in {
        "relu": F.relu,
        "relu6": F.relu6,
        "leaky_relu": lambda t: F.leaky_relu(t, 0.1),
        "h_swish": F.hardswish,
        "h_sigmoid": F.hardsigmoid,
        "sigmoid": torch.sigmoid,
        "silu": F.silu,
    }.items():
        x = torch.tensor(AT, dtype=torch.float64, requires_grad=True)
        act(x).sum().backward()
        print(name, row(x.grad.tolist()))


def updates(name, optimizer):
    x = torch.tensor(VALUES, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer([x])
    print(name)
    for _ in range(STEPS):
        x.grad = x.detach() * CURVATURE
        optimizer.step()
        print("   ", row(x.tolist()))


slopes()
updates("sgd", lambda p: torch.optim.SGD(p, lr=0.1))
updates("momentum", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01))
updates("nesterov", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True))
updates("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.05))
