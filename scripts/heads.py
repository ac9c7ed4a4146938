#!/usr/bin/env python3
"""A linear head on frozen EfficientNet-Lite0 features: penjing beside PyTorch, same photos, same weights, one run.

usage: heads.py LITE0.pth DATA...      (run from the repository's root after `cargo build --release`)
Each DATA holds train/ and test/ of class folders. penjing trains by `--recipe head` with an empty cache; a DATA written
as FOLDER:REGEX is trained with --group-by REGEX. PyTorch's accuracy is the median of five seeds, its time that of
one. Needs torch, torchvision, pillow, efficientnet-lite-pytorch.
"""
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

PENJING = "target/release/penjing"


def pytorch_head(weights, data):
    """What a PyTorch user does: features once, then AdamW on a linear layer. Seconds include loading the photos."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image
    from torchvision import datasets
    from torchvision import transforms as T

    see = T.Compose([T.Resize(256, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(),
                     T.Normalize([127 / 255] * 3, [128 / 255] * 3)])
    rgb = lambda path: Image.open(path).convert("RGB")
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weights, weights_only=True))
    net = net.to(memory_format=torch.channels_last).eval()

    def features(part):
        photos = datasets.ImageFolder(f"{data}/{part}", see, loader=rgb)
        xs, ys = [], []
        with torch.inference_mode():
            for x, y in torch.utils.data.DataLoader(photos, 32):
                xs.append(net.extract_features(x.to(memory_format=torch.channels_last)).mean((2, 3)))
                ys.append(y)
        return torch.cat(xs).clone(), torch.cat(ys).clone(), len(photos.classes)

    def fitted(seed):
        torch.manual_seed(seed)
        head = torch.nn.Linear(x.shape[1], classes)
        optimizer = torch.optim.AdamW(head.parameters(), 1e-2, weight_decay=1e-3)
        for _ in range(60):
            for batch in torch.randperm(len(x)).split(64):
                loss = torch.nn.functional.cross_entropy(head(x[batch]), y[batch], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return head

    start = time.time()
    x, y, classes = features("train")
    heads = [fitted(0)]
    seconds = time.time() - start
    # The last of many noisy steps is a matter of luck: the accuracy is the median of five.
    heads += [fitted(seed) for seed in range(1, 5)]
    test_x, test_y, _ = features("test")
    top1 = statistics.median((head(test_x).argmax(1) == test_y).float().mean().item() for head in heads)
    print(json.dumps({"top1": top1, "seconds": seconds,
                      "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def run(args):
    return json.loads(subprocess.run(args, check=True, capture_output=True).stdout)


if sys.argv[1] == "--pytorch":
    pytorch_head(*sys.argv[2:4])
    sys.exit()
weights, sets = sys.argv[1], sys.argv[2:]
print("| photos | classes | top-1 penjing | PyTorch | seconds penjing | PyTorch | ratio | peak memory penjing | PyTorch |")
print("|---|---|---|---|---|---|---|---|---|")
for entry in sets:
    data, _, pattern = entry.partition(":")
    theirs = run([sys.executable, __file__, "--pytorch", weights, data])
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model.penjing"
        group = ["--group-by", pattern] if pattern else []
        ours = run([PENJING, "--json", "--quiet", "train", f"{data}/train", "-o", model, "--recipe", "head",
                    "--no-cache", *group])
        top1 = run([PENJING, "--json", "--quiet", "eval", model, f"{data}/test"])["top1"]
    name = os.path.basename(data.rstrip("/"))
    print(f"| {name} | {ours['classes']} | {100 * top1:.2f} % | {100 * theirs['top1']:.2f} % | {ours['seconds']:.1f} | "
          f"{theirs['seconds']:.1f} | {ours['seconds'] / theirs['seconds']:.2f} | {ours['peak_rss_bytes'] / 1e6:.0f} MB | "
          f"{theirs['peak'] / 1e6:.0f} MB |", flush=True)
