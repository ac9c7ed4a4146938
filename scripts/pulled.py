"""Every network that can be pulled, from a hub on this machine to labels, beside timm's own way from photo to labels.

Needs torch, timm, numpy, pillow and safetensors. Run from the repository root, after cargo build --release -p penjing-cli:
python scripts/pulled.py

The weights are random, normalizations included, since what is compared is whether both compute the same: keys, axes, padding,
epsilon, and what becomes of the photo. Prints a table; ends with 1 where the first three classes or a probability differ.
"""

import functools
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

PENJING = os.environ.get("PENJING", "target/release/penjing")
# Both sum up in floating point, each in its own order.
TOLERANCE = 1e-3


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def network(name):
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.7, 1.3)
            module.bias.data.uniform_(-0.2, 0.2)
    return model


def probabilities(model, photo):
    config = timm.data.resolve_data_config(model.pretrained_cfg)
    image = timm.data.create_transform(**config)(photo)[None]
    with torch.no_grad():
        # Random weights tell classes apart by a hair; this makes the differences count.
        head = model.get_classifier()
        scale = 6 / model(image).std()
        head.weight.data *= scale
        head.bias.data *= scale
        return torch.softmax(model(image)[0], 0)


rows = re.findall(r"^\| `(\w[^`]*)` \| `(timm/[^`]+)`", pathlib.Path("docs/weights.md").read_text(), re.M)
assert len(rows) > 10
torch.manual_seed(0)
good = True
with tempfile.TemporaryDirectory() as folder:
    noise = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((450, 370), Image.BICUBIC)
    photo.save(f"{folder}/photo.png")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = dict(os.environ, PENJING_HUB=address, PENJING_CACHE=f"{folder}/cache", NO_PROXY="*")

    def penjing(*arguments):
        run = subprocess.run([PENJING, *arguments, "--json"], env=environment, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"penjing {' '.join(arguments)}: {run.stderr}")
        return json.loads(run.stdout)

    print("| network | first three classes | largest difference of their probabilities |\n|---|---|---:|")
    for name, repository in rows:
        model = network(repository.split("/")[1])
        theirs = probabilities(model, photo)
        place = pathlib.Path(folder, repository, "resolve/main")
        place.mkdir(parents=True)
        save_file(model.state_dict(), place / "model.safetensors")
        pulled = penjing("weights", "pull", name)
        (place / "model.safetensors").unlink()
        [photo_answer] = penjing("classify", pulled["model"], f"{folder}/photo.png", "--top", "3")
        ours = {int(guess["label"]): guess["p"] for guess in photo_answer["top"]}
        same = list(ours) == theirs.topk(3).indices.tolist()
        difference = max(abs(p - theirs[label].item()) for label, p in ours.items())
        good &= same and difference < TOLERANCE
        print(f"| {name} | {'the same' if same else 'OTHERS'} | {difference:.1e} |", flush=True)
    assert all(checked["fault"] is None for checked in penjing("weights", "verify"))
sys.exit(not good)
