//! What networks cost, against counts on PyTorch's (`scripts/goldens/costs.py`).

use penjing::zoo::{Arch, Config};
use penjing_runtime::cost;

#[test]
fn parameters_and_multiplications_are_the_published_ones() {
    let golden = include_str!("goldens/costs.csv");
    let mut published = vec![];
    for line in golden.lines().skip(1) {
        let [name, width, size, params, macs] = line.split(',').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let arch = Arch::named(name).unwrap().0;
        let (width, size) = (width.parse().unwrap(), size.parse().unwrap());
        let graph = arch.graph(&Config { width, size, ..arch.config(1000) }).unwrap();
        let layers = cost::layers(&graph);
        let found =
            (layers.iter().map(|l| l.params).sum::<u64>(), layers.iter().map(|l| l.macs).sum::<u64>());
        assert_eq!(found, (params.parse().unwrap(), macs.parse().unwrap()), "{line}");
        if size == 224 {
            published.push((found.0, found.1 / 1_000_000));
        }
    }
    // EfficientNet-Lite0, MobileNetV1 (Howard et al., arXiv 1704.04861: 569 million, which is rounded) and MobileNetV2
    // (Sandler et al., arXiv 1801.04381: 300 million).
    assert_eq!(published, [(4_652_008, 385), (4_231_976, 568), (3_504_872, 300)]);
}
