//! Milliseconds of making a network's input from decoded photos of common sizes.

use std::{hint::black_box, time::Instant};

use penjing_runtime::pixels::{Color, DecodeRule, Filter, Fit, Pixels, Rgb, View};

fn main() {
    let cases = [
        (500, 375, 256, 224),
        (500, 375, 110, 96),
        (1920, 1080, 256, 224),
        (4000, 3000, 256, 224),
        (100, 80, 256, 224),
    ];
    for (width, height, short, side) in cases {
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Box] {
            for color in [Color::Rgb, Color::Gray] {
                let fit = Fit::Crop { short };
                let (mean, std, decode) = ([127.0; 3], [127.0; 3], DecodeRule::Full);
                let pixels = Pixels { height: side, width: side, color, fit, filter, mean, std, decode };
                let data: Vec<u8> = (0..width * height * 3).map(|i| (i * i % 251) as u8).collect();
                let photo = Rgb { width, height, data: &data };
                let mut out = Vec::new();
                let mut times: Vec<f64> = (0..51)
                    .map(|_| {
                        let start = Instant::now();
                        pixels.bytes(black_box(photo), View::PLAIN, &mut out);
                        black_box(&out);
                        start.elapsed().as_secs_f64() * 1e3
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                println!(
                    "{width} x {height} to {short}, crop {side}, {filter:?} {color:?}: {:.3} ms",
                    times[times.len() / 2]
                );
            }
        }
    }
}
