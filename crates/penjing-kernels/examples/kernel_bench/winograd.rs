//! Dense 3×3 convolutions of stride 1, directly and by Winograd.

use penjing_kernels::{Act, Isa, Serial, conv, winograd};

use crate::{buffer::Buffer, layer::window, machine::best};

/// Size of the map, input channels and output channels: of ResNet, SqueezeNet and ResNet-8.
const SHAPES: &[(usize, usize, usize)] = &[
    (56, 64, 64),
    (28, 128, 128),
    (14, 256, 256),
    (7, 512, 512),
    (54, 16, 64),
    (54, 32, 128),
    (27, 32, 128),
    (27, 48, 192),
    (27, 64, 256),
    (13, 48, 192),
    (13, 64, 256),
    (32, 16, 16),
    (16, 32, 32),
    (8, 64, 64),
    (32, 8, 8),
    (56, 4, 16),
    (112, 3, 32),
    (112, 32, 8),
];

const RUNS: usize = 40;

pub fn print(isa: Isa) {
    println!("microseconds           direct winograd  ratio     error of the largest output");
    for &(size, in_c, out_c) in SHAPES {
        let w = window(size, 3, 1);
        let (k, len) = (9 * in_c, size * size * out_c);
        let x = Buffer::noise(size * size * in_c);
        let (weights, residual) = (Buffer::noise(out_c * k), Buffer::noise(len));
        let mut results = [Buffer::noise(len), Buffer::noise(len)];
        let mut seconds = [0.0; 2];
        let (x, weights, residual) = (x.get(), weights.get(), Some(residual.get()));
        for (winograd, (seconds, y)) in seconds.iter_mut().zip(&mut results).enumerate() {
            let y = y.get_mut();
            if winograd == 0 {
                let mut packed = Buffer::noise(conv::packed_len(1, out_c, k));
                conv::pack(1, out_c, k, weights, None, packed.get_mut());
                let mut scratch = Buffer::noise(conv::scratch_len(&w, in_c, 1, 1));
                let (packed, scratch) = (packed.get(), scratch.get_mut());
                *seconds = best(RUNS, || {
                    conv::run(isa, &Serial, &w, in_c, out_c, 1, Act::None, x, packed, residual, scratch, y);
                });
            } else {
                let mut packed = Buffer::noise(winograd::packed_len(in_c, out_c));
                winograd::pack(in_c, out_c, weights, None, packed.get_mut());
                let mut scratch = Buffer::noise(winograd::scratch_len(&w, in_c, out_c, 1));
                let (packed, scratch) = (packed.get(), scratch.get_mut());
                *seconds = best(RUNS, || {
                    winograd::run(isa, &Serial, &w, in_c, out_c, Act::None, x, packed, residual, scratch, y);
                });
            }
        }
        let [direct, winograd] = seconds;
        let pairs = results[0].get().iter().zip(results[1].get());
        let (error, largest) =
            pairs.fold((0f32, 0f32), |(e, l), (a, b)| (e.max((a - b).abs()), l.max(a.abs())));
        println!(
            "{size:3}x{size:<3} {in_c:3} -> {out_c:3} {:8.1} {:8.1}  {:5.2}  {:.1e}",
            direct * 1e6,
            winograd * 1e6,
            winograd / direct,
            error / largest
        );
    }
}
