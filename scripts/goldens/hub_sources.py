"""What timm says of the weights that can be pulled: licence, pixels, accuracy, and how the network around them computes.

Needs timm, and its table of accuracies, results/results-imagenet.csv of its repository. Run from the repository root:
python scripts/goldens/hub_sources.py results-imagenet.csv

Writes crates/penjing/tests/goldens/hub/timm.json: one entry a repository. timm's default weights of each network are taken,
and only those that it holds on the hub itself.
"""

import csv
import json
import pathlib
import sys

import timm
import torch

NETWORKS = """
    mnasnet_100 mobilenetv1_100 mobilenetv2_050 mobilenetv2_100 mobilenetv2_140
    mobilenetv3_large_100 mobilenetv3_small_050 mobilenetv3_small_075 mobilenetv3_small_100
    tf_mobilenetv3_large_minimal_100 tf_mobilenetv3_small_minimal_100
    mobilenetv4_conv_medium mobilenetv4_conv_small
    tf_efficientnet_lite0 tf_efficientnet_lite1 tf_efficientnet_lite2 tf_efficientnet_lite3 tf_efficientnet_lite4
    resnet18 resnet34 resnet50
""".split()

with open(sys.argv[1], newline="") as file:
    measured = list(csv.DictReader(file))

entries = {}
for network in NETWORKS:
    cfg = timm.models.get_pretrained_cfg(network)
    name = f"{network}.{cfg.tag}"
    assert cfg.hf_hub_id == f"timm/{name}", cfg.hf_hub_id
    assert cfg.num_classes == 1000 and cfg.crop_mode == "center" and cfg.hf_hub_filename is None
    channels, height, width = cfg.input_size
    assert channels == 3 and height == width
    [row] = [
        row for row in measured
        if row["model"] == name and int(row["img_size"]) == width and float(row["crop_pct"]) == round(cfg.crop_pct, 3)
    ]
    assert row["interpolation"] == cfg.interpolation
    model = timm.create_model(network)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    [bn_eps] = {norm.eps for norm in norms}
    # Counters of batches are no weights.
    values = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    entries[cfg.hf_hub_id] = {
        "license": cfg.license,
        "size": width,
        "crop_pct": cfg.crop_pct,
        "interpolation": cfg.interpolation,
        "mean": cfg.mean,
        "std": cfg.std,
        "top1": float(row["top1"]),
        "bn_eps": bn_eps,
        "same_padding": any(type(module).__name__ == "Conv2dSame" for module in model.modules()),
        "values": values,
    }

out = pathlib.Path("crates/penjing/tests/goldens/hub")
out.mkdir(parents=True, exist_ok=True)
(out / "timm.json").write_text(json.dumps({"timm": timm.__version__, **entries}, indent=1, sort_keys=True) + "\n")
