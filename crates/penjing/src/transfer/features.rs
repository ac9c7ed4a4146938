//! Features of photos under a frozen backbone, computed once and kept on disk.

use std::path::Path;

use penjing_runtime::{
    file::Model,
    pixels::{Region, View},
};
use rayon::prelude::*;

use super::cache::{FeatureCache, Row, round_to_stored};
use crate::{
    Error, Result,
    data::{
        Sample, Skipped,
        decode::{self, Limits},
    },
    progress::Progress,
    random::SplitMix64,
    runner::Runner,
    threads::Threads,
};

/// What a backbone says of photos.
#[derive(Debug)]
pub struct Extracted {
    /// Values in a row.
    pub width: usize,
    /// `[photos · views][width]`: the views of a photo stand together, the plain one first.
    pub rows: Vec<f32>,
    /// Views of each photo.
    pub views: usize,
    /// For each photo its place among the samples; those that could not be read are left out.
    pub kept: Vec<usize>,
    /// BLAKE3 hash of each kept photo's bytes.
    pub hashes: Vec<[u8; 32]>,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
    /// Rows that were computed now; the others came from the cache.
    pub computed: usize,
}

/// A frozen backbone under a pixels contract: photos in, feature rows out.
#[derive(Debug)]
pub struct Extractor {
    runner: Runner,
    key: [u8; 32],
    width: usize,
}

impl Extractor {
    /// The part of `model` below its classifier.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model that does not end with a linear layer.
    pub fn new(model: &Model) -> Result<Self> {
        let (_, features) = model.graph.classifier().ok_or_else(|| {
            Error::Unsupported(format!(
                "{} does not end with a linear layer, so it has no features",
                model.arch
            ))
        })?;
        let graph = model.graph.up_to(features);
        let width = graph.shape(features)[3];
        let wanted: std::collections::BTreeSet<String> =
            graph.parameters().into_iter().map(|(name, _)| name).collect();
        let weights: penjing_runtime::tensor::Weights = model
            .weights
            .iter()
            .filter(|(name, _)| wanted.contains(*name))
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect();
        let mut hasher = blake3::Hasher::new();
        let described =
            serde_json::to_vec(&(env!("CARGO_PKG_VERSION"), FEATURES_VERSION, graph.nodes(), &model.pixels));
        hasher.update(&described.map_err(|error| Error::Unsupported(error.to_string()))?);
        for (name, tensor) in &weights {
            hasher.update(name.as_bytes());
            hasher.update(&tensor.to_le_bytes());
        }
        let runner = Runner::new(&graph, &weights, &model.pixels, 1)?;
        Ok(Extractor { runner, key: *hasher.finalize().as_bytes(), width })
    }

    /// Values in a feature row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The features that this extractor has left in a folder.
    pub fn cache(&self, folder: &Path) -> FeatureCache {
        FeatureCache::open(folder, self.key, self.width)
    }

    /// Features of `views` views of every sample.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the watcher says so; what was computed is in the cache then.
    pub fn extract(
        &self,
        samples: &[&Sample],
        views: usize,
        mut cache: Option<&mut FeatureCache>,
        threads: &Threads,
        progress: &dyn Progress,
    ) -> Result<Extracted> {
        let mut all = Extracted {
            width: self.width,
            rows: Vec::new(),
            views,
            kept: Vec::new(),
            hashes: Vec::new(),
            skipped: Vec::new(),
            computed: 0,
        };
        // Growing by doubling would hold the largest part of all memory twice.
        let values = samples.len().saturating_mul(views).saturating_mul(self.width);
        all.rows.try_reserve_exact(values).map_err(|_| {
            Error::Unsupported(format!(
                "{} photos in {views} views give {values} features, more than memory holds; use fewer views",
                samples.len()
            ))
        })?;
        progress.begin("features", samples.len());
        let chunk = 32 * threads.count();
        for (start, chunk) in (0..).step_by(chunk).zip(samples.chunks(chunk)) {
            let cached = cache.as_deref();
            let look = |sample: &&Sample| {
                if progress.cancelled() {
                    return Err(Error::Interrupted);
                }
                let photo = self.photo(&sample.path, views, cached);
                progress.advance(1);
                photo
            };
            let photos: Vec<Result<PhotoFeatures>> = threads.install(|| chunk.par_iter().map(look).collect());
            let mut fresh = Vec::new();
            for (index, photo) in (start..).zip(photos) {
                match photo {
                    Ok(photo) => {
                        all.kept.push(index);
                        all.hashes.push(photo.hash);
                        for (view, (row, computed)) in photo.rows.into_iter().enumerate() {
                            all.rows.extend_from_slice(&row);
                            if computed {
                                fresh.push((photo.hash, view as u32, row));
                            }
                        }
                    }
                    // What the others have computed is stored before the work ends.
                    Err(Error::Interrupted) => {}
                    Err(error) => {
                        all.skipped.push(Skipped::new(&samples[index].path, &error));
                    }
                }
            }
            all.computed += fresh.len();
            if let Some(cache) = cache.as_deref_mut() {
                cache.append(fresh.iter().map(|(photo, view, values)| Row {
                    photo: *photo,
                    view: *view,
                    values,
                }));
            }
            if progress.cancelled() {
                progress.end();
                return Err(Error::Interrupted);
            }
        }
        progress.end();
        Ok(all)
    }

    fn photo(&self, path: &Path, views: usize, cache: Option<&FeatureCache>) -> Result<PhotoFeatures> {
        let limits = Limits::default();
        let bytes = decode::read_bytes(path, &limits)?;
        let hash = *blake3::hash(&bytes).as_bytes();
        let mut rows = Vec::with_capacity(views);
        let mut decoded = None;
        for view in 0..views {
            if let Some(row) = cache.and_then(|cache| cache.get(&hash, view as u32)) {
                rows.push((row, false));
                continue;
            }
            let photo = match &decoded {
                Some(photo) => photo,
                None => decoded.insert(
                    decode::decode_for(&bytes, &limits, self.runner.pixels())
                        .map_err(|error| Error::data(path, error.to_string()))?,
                ),
            };
            let mut row = self.runner.run(photo.view(), recipe(view, &hash, photo.width, photo.height));
            // At once, so that a first run and a cached one see the same numbers.
            round_to_stored(&mut row);
            rows.push((row, true));
        }
        Ok(PhotoFeatures { hash, rows })
    }
}

/// Raised when features or views are made in another way, so that old cache files are not used; each release of penjing
/// starts anew anyway.
const FEATURES_VERSION: u32 = 1;

struct PhotoFeatures {
    hash: [u8; 32],
    /// Each view's values, and whether they were computed now.
    rows: Vec<(Vec<f32>, bool)>,
}

/// How view number `view` looks at a photo: 0 plainly, 1 mirrored, the others at a rectangle of 35–100 % of its area
/// (RandomResizedCrop, aspect ¾..⁴⁄₃), every second one mirrored. Depends on the photo's bytes and the number only.
fn recipe(view: usize, hash: &[u8; 32], width: usize, height: usize) -> View {
    let flip = view % 2 == 1;
    if view < 2 {
        return View { flip, region: None };
    }
    let mut random =
        SplitMix64::new(u64::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8])) ^ view as u64);
    let area = (width * height) as f64 * (0.35 + 0.65 * random.uniform());
    let aspect = (0.75f64.ln() + random.uniform() * (16.0f64 / 9.0).ln()).exp();
    let side = |extent: f64, most: usize| (extent.round() as usize).clamp(1, most);
    let (w, h) = (side((area * aspect).sqrt(), width), side((area / aspect).sqrt(), height));
    let (x, y) = (random.below(width - w + 1), random.below(height - h + 1));
    View { flip, region: Some(Region { x, y, width: w, height: h }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::Part,
        model,
        progress::Quiet,
        transfer::adapt::{Input, adapt},
    };

    #[test]
    fn a_first_run_and_a_cached_one_see_the_same_numbers() {
        let input = Input { size: Some(32), ..Input::default() };
        let extractor = Extractor::new(&adapt(&model::bundled().unwrap(), &input).unwrap()).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos/rgb.bmp");
        let sample = Sample { path, class: 0, part: Part::Train, group: None };
        let (folder, threads) = (tempfile::tempdir().unwrap(), Threads::new(Some(1)).unwrap());
        let extract = || {
            let mut cache = extractor.cache(folder.path());
            extractor.extract(&[&sample], 3, Some(&mut cache), &threads, &Quiet).unwrap()
        };
        let (first, cached) = (extract(), extract());
        assert_eq!([first.computed, cached.computed], [3, 0]);
        assert!(first.rows == cached.rows, "features differ by what was in the cache");
        let views: Vec<&[f32]> = first.rows.chunks(extractor.width()).collect();
        assert!(views[0] != views[1] && views[0] != views[2], "every view shows the same");
    }

    #[test]
    fn views_are_plain_mirrored_and_parts() {
        assert_eq!(recipe(0, &[1; 32], 640, 480), View::PLAIN);
        assert_eq!(recipe(1, &[1; 32], 640, 480), View { flip: true, region: None });
        for view in 2..50 {
            let View { flip, region: Some(region) } = recipe(view, &[1; 32], 640, 480) else {
                panic!("{view}")
            };
            assert_eq!(flip, view % 2 == 1);
            assert!(region.x + region.width <= 640 && region.y + region.height <= 480, "{region:?}");
            // A side may have been cut to the photo's, never drawn out.
            assert!(
                region.width * region.height <= 640 * 480 && region.width * region.height > 640 * 480 / 4
            );
        }
    }
}
