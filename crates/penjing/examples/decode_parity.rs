//! How far decoded JPEGs are from Pillow's, and how long decoding takes.
//!
//! `scripts/goldens/decode_dump.py DUMP FOLDER...`, then `cargo run --release --example decode_parity -- DUMP`.

use std::{fs::File, io::BufReader, io::Read, path::PathBuf, time::Instant};

use penjing::data::decode::{Limits, decode};

fn main() -> std::io::Result<()> {
    let Some(dump) = std::env::args_os().nth(1) else {
        return Err(std::io::Error::other(
            "usage: decode_parity DUMP, written by scripts/goldens/decode_dump.py",
        ));
    };
    let mut dump = BufReader::new(File::open(dump)?);
    let (mut photos, mut refused, mut seconds) = (0u32, 0u32, 0.0);
    // How many bytes differ by how much, and photo by photo the largest mean.
    let mut by_size = [0u64; 256];
    let mut worst = (0.0, PathBuf::new());
    while let Some(length) = number(&mut dump)? {
        let path = PathBuf::from(String::from_utf8_lossy(&bytes(&mut dump, length as usize)?).into_owned());
        let width = number(&mut dump)?.unwrap_or(0) as usize;
        let height = number(&mut dump)?.unwrap_or(0) as usize;
        let pillow = bytes(&mut dump, width * height * 3)?;
        let file = std::fs::read(&path)?;
        let start = Instant::now();
        let photo = decode(&file, &Limits::default());
        seconds += start.elapsed().as_secs_f64();
        photos += 1;
        match photo {
            Ok(photo) if (photo.width, photo.height) == (width, height) => {
                let mut sum = 0u64;
                for (a, b) in photo.data.iter().zip(&pillow) {
                    by_size[usize::from(a.abs_diff(*b))] += 1;
                    sum += u64::from(a.abs_diff(*b));
                }
                let mean = sum as f64 / pillow.len().max(1) as f64;
                if mean > worst.0 {
                    worst = (mean, path);
                }
            }
            Ok(photo) => {
                refused += 1;
                println!(
                    "{}: {} x {}, Pillow has {width} x {height}",
                    path.display(),
                    photo.width,
                    photo.height
                );
            }
            Err(e) => {
                refused += 1;
                println!("{}: {e}", path.display());
            }
        }
    }
    let total = by_size.iter().sum::<u64>().max(1) as f64;
    let sum: f64 = by_size.iter().enumerate().map(|(d, &n)| d as f64 * n as f64).sum();
    let share = |from: usize| 100.0 * by_size[from..].iter().sum::<u64>() as f64 / total;
    println!(
        "{photos} photos, {refused} not comparable, {:.2} ms each",
        1e3 * seconds / f64::from(photos.max(1))
    );
    println!(
        "bytes that differ: {:.3} %; by 2 or more {:.4} %, 4 or more {:.5} %",
        share(1),
        share(2),
        share(4)
    );
    println!(
        "largest difference {}, mean {:.4}",
        by_size.iter().rposition(|&n| n > 0).unwrap_or(0),
        sum / total
    );
    println!("worst photo: mean {:.4}, {}", worst.0, worst.1.display());
    Ok(())
}

fn bytes(from: &mut impl Read, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The next number, or `None` at the end.
fn number(from: &mut impl Read) -> std::io::Result<Option<u32>> {
    let mut four = [0; 4];
    match from.read_exact(&mut four) {
        Ok(()) => Ok(Some(u32::from_le_bytes(four))),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}
