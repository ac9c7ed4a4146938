//! The embedded example: Fashion-MNIST in IDX files, unpacked to folders of PNG.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use image::GrayImage;

use crate::process;

/// More than any file of the example unpacks to.
const LIMIT_BYTES: u64 = 16 << 20;
const IMAGES_MAGIC: u32 = 0x803;
const LABELS_MAGIC: u32 = 0x801;

/// Writes `DIR/{train,test}/CLASS/NNNN.png`, at most `per_class` photos a class and split, and returns their number.
pub fn unpack(dir: &Path, per_class: usize) -> Result<usize> {
    let example = process::root().join("examples/fashion-mnist");
    let classes = std::fs::read_to_string(example.join("classes.txt"))?;
    let classes: Vec<&str> = classes.lines().collect();
    let mut written = 0;
    for split in ["train", "test"] {
        let images = read_gzip(&example.join(format!("{split}-images.gz")))?;
        let labels = read_gzip(&example.join(format!("{split}-labels.gz")))?;
        let (images, labels) = parse(&images, &labels).with_context(|| format!("{split} of the example"))?;
        let mut seen = vec![0_usize; classes.len()];
        for (image, label) in images.into_iter().zip(labels) {
            let label = usize::from(*label);
            let class = classes.get(label).with_context(|| format!("label {label} has no name"))?;
            if seen[label] == per_class {
                continue;
            }
            seen[label] += 1;
            let folder = dir.join(split).join(class);
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let path = folder.join(format!("{:04}.png", seen[label]));
            image.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
            written += 1;
        }
    }
    Ok(written)
}

fn read_gzip(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    let read = GzDecoder::new(file).take(LIMIT_BYTES).read_to_end(&mut bytes);
    read.with_context(|| format!("{} is not gzip", path.display()))?;
    Ok(bytes)
}

/// Two IDX files: `[N,H,W]` bytes of gray and `[N]` labels, big-endian sizes in front.
fn parse<'a>(images: &[u8], labels: &'a [u8]) -> Result<(Vec<GrayImage>, &'a [u8])> {
    let ([magic, count, height, width], pixels) = header(images)?;
    let ([labels_magic, label_count], labels) = header(labels)?;
    if magic != IMAGES_MAGIC || labels_magic != LABELS_MAGIC {
        bail!(
            "not IDX: magic {magic:#x} and {labels_magic:#x}, expected {IMAGES_MAGIC:#x} and {LABELS_MAGIC:#x}"
        );
    }
    let image_bytes = u64::from(height) * u64::from(width);
    let expected = u64::from(count).saturating_mul(image_bytes);
    if image_bytes == 0 || pixels.len() as u64 != expected {
        bail!("{} bytes of pixels, expected {count}×{height}×{width}", pixels.len());
    }
    if count != label_count || labels.len() as u64 != u64::from(count) {
        bail!("{} labels for {count} images", labels.len());
    }
    let image = |bytes: &[u8]| GrayImage::from_raw(width, height, bytes.to_vec());
    let images: Option<Vec<_>> = pixels.chunks_exact(image_bytes as usize).map(image).collect();
    Ok((images.context("an image of the wrong size")?, labels))
}

/// The first `N` big-endian words, and the rest.
fn header<const N: usize>(bytes: &[u8]) -> Result<([u32; N], &[u8])> {
    let mut words = [0; N];
    let mut rest = bytes;
    for word in &mut words {
        let (first, after) = rest.split_first_chunk().context("the file ends within its header")?;
        *word = u32::from_be_bytes(*first);
        rest = after;
    }
    Ok((words, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idx(words: &[u32], rest: &[u8]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).chain(rest.iter().copied()).collect()
    }

    #[test]
    fn images_come_out_in_order() {
        let images = idx(&[IMAGES_MAGIC, 2, 1, 2], &[1, 2, 3, 4]);
        let labels = idx(&[LABELS_MAGIC, 2], &[7, 9]);
        let (images, labels) = parse(&images, &labels).unwrap();
        assert_eq!((images[0].as_raw(), images[1].as_raw()), (&vec![1, 2], &vec![3, 4]));
        assert_eq!((images[0].dimensions(), labels), ((2, 1), &[7, 9][..]));
    }

    #[test]
    fn damaged_files_are_refused() {
        let labels = idx(&[LABELS_MAGIC, 1], &[0]);
        for images in [
            idx(&[IMAGES_MAGIC, 1, 1], &[]),
            idx(&[0x802, 1, 1, 1], &[1]),
            idx(&[IMAGES_MAGIC, 1, 1, 1], &[]),
            idx(&[IMAGES_MAGIC, 2, 1, 1], &[1, 2]),
            idx(&[IMAGES_MAGIC, 1, 0, 0], &[]),
            idx(&[IMAGES_MAGIC, u32::MAX, u32::MAX, u32::MAX], &[1]),
        ] {
            assert!(parse(&images, &labels).is_err());
        }
    }

    #[test]
    fn the_embedded_example_unpacks() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unpack(dir.path(), 2).unwrap(), 2 * 2 * 10);
        let photo = image::open(dir.path().join("test/Ankle boot/0001.png")).unwrap();
        assert_eq!((photo.width(), photo.height()), (28, 28));
    }
}
