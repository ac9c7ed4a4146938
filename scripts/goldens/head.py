#!/usr/bin/env python3
"""Golden optima of the regularized linear head, by scikit-learn (and NumPy for the data).

usage: head.py > crates/penjing/tests/goldens/head.json

The data comes from a linear congruential generator that the test in `transfer/head.rs` repeats: two views of each
photo, the second of weight 1/4. scikit-learn minimizes sum(CE)·C + ‖W‖²/2, so C = 1 / (λ · Σ weights).
"""
import json

import numpy as np
from sklearn.linear_model import LogisticRegression

PHOTOS, CLASSES, WIDTH, VIEWS = 90, 5, 24, 2


def data():
    state = 1
    rows, photo, weight = [], [], []
    for p in range(PHOTOS):
        for view in range(VIEWS):
            for i in range(WIDTH):
                state = (state * 1664525 + 1013904223) % 2**32
                u = np.float32(state >> 8) / np.float32(2**24)
                shift = np.float32(0.375) if i % CLASSES == p % CLASSES else np.float32(0)
                rows.append(u * np.float32(1 + i % 3) + shift)
            photo.append(p)
            weight.append(1.0 if view == 0 else 0.25)
    return np.array(rows, np.float32).reshape(-1, WIDTH).astype(np.float64), np.array(photo), np.array(weight)


x, photo, weight = data()
label = photo % CLASSES
mean = np.average(x, axis=0, weights=weight)
deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight).mean())
scaled = (x - mean) / deviation
out = []
for strength in [1.0, 0.1, 0.01, 0.001]:
    model = LogisticRegression(C=1 / (strength * weight.sum()), tol=1e-10, max_iter=100000)
    model.fit(scaled, label, sample_weight=weight)
    z = model.decision_function(scaled)
    ce = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), label]
    loss = np.average(ce, weights=weight) + strength / 2 * (model.coef_**2).sum()
    out.append({"lambda": strength, "loss": loss, "classes": model.predict(scaled).tolist()})
print(json.dumps(out))
