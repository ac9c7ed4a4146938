#!/usr/bin/env python3
"""Golden losses and gradients of distillation, from PyTorch in float64: prints the table in the tests of
crates/penjing/src/train/distill.rs. The losses are written with torch.nn.functional as their papers have them
(KD: arXiv 1503.02531, DKD: arXiv 2203.08679), the gradients are autograd's.

usage: distill.py        (needs torch)
"""
import torch
import torch.nn.functional as F

# The second photo has no label; DKD takes its teacher's likeliest class for it.
STUDENT = [[1.0, -2.0, 0.5, 3.0], [0.0, 2.5, -1.0, 0.5], [4.0, 0.0, 0.0, -3.0]]
TEACHER = [[2.0, -1.0, 0.0, 5.0], [-0.5, 6.0, 1.0, 0.0], [-1.0, 3.0, 0.5, 0.0]]
TARGETS = [[0.025, 0.025, 0.025, 0.925], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
CLASSES = [3, 1, 1]
HINT = [[0.5, -0.25], [1.0, 0.0], [0.0, 2.0]]
FEATURES = [[1.0, 0.5], [0.0, 0.0], [-0.5, 1.5]]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


teacher, targets, features = map(tensor, (TEACHER, TARGETS, FEATURES))
classes = torch.tensor(CLASSES)


def hard(z):
    return -(targets * F.log_softmax(z, 1)).sum() / len(z)


def kd(z, t, share):
    soft = F.kl_div(F.log_softmax(z / t, 1), F.softmax(teacher / t, 1), reduction="batchmean")
    return (1 - share) * hard(z) + share * t * t * soft


def dkd(z, t, beta, weight):
    own = F.one_hot(classes, z.shape[1]).bool()

    def binary(x):
        p = F.softmax(x / t, 1)
        return torch.stack([p[own], 1 - p[own]], 1)

    def others(x):
        return (x / t)[~own].reshape(len(x), -1)

    target = F.kl_div(binary(z).log(), binary(teacher), reduction="batchmean")
    rest = F.kl_div(F.log_softmax(others(z), 1), F.softmax(others(teacher), 1), reduction="batchmean")
    return hard(z) + weight * t * t * (target + beta * rest)


def hints(h):
    total = 0
    for ours, theirs in zip(h, features):
        if theirs.square().sum() > 0:
            total = total + F.mse_loss(ours, theirs) / theirs.square().mean()
    return total / len(h)


def show(name, loss, values):
    x = tensor(values).requires_grad_()
    value = loss(x)
    value.backward()
    print(name, f"{value.item():.9g}")
    for row in x.grad.tolist():
        print("    [" + ", ".join(f"{g:.7g}" for g in row) + "],")


show("kd, temperature 4, share 0.9", lambda z: kd(z, 4, 0.9), STUDENT)
show("kd, temperature 1, share 0.5", lambda z: kd(z, 1, 0.5), STUDENT)
show("dkd, temperature 4, beta 8, warmed up", lambda z: dkd(z, 4, 8, 1), STUDENT)
show("dkd, temperature 2, beta 3, a quarter warmed up", lambda z: dkd(z, 2, 3, 0.25), STUDENT)
show("hints", hints, HINT)
