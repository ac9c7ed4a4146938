//! A pretrained network's knowledge carried over to new classes.

pub mod adapt;
pub mod cache;
pub mod calibration;
pub mod features;
pub mod head;
mod lbfgs;
mod softmax_loss;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use penjing_runtime::{
    file::{Calibration, Model, Provenance},
    op::Op,
    tensor::Tensor,
};

use self::{
    adapt::Input,
    features::{Extracted, Extractor},
    head::{Features, Fit, Tried},
};
use crate::{
    Error, Result,
    data::{Dataset, Part, Sample, Skipped, split},
    progress::Progress,
    threads::Threads,
};

/// How a head is fitted.
#[derive(Clone, Debug)]
pub struct Options {
    /// How photos become the input.
    pub input: Input,
    /// Views of each training photo: 1 plain, 2 also mirrored, more also cropped. When `None`, mirrored views are made
    /// up to 10,000 photos, and left out again if they led astray on held-out photos: a mirrored arrow is another arrow.
    pub views: Option<usize>,
    /// Seed of the split.
    pub seed: u64,
    /// Folder of the feature cache; `None` for no cache.
    pub cache: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options { input: Input::default(), views: None, seed: 0, cache: cache::default_dir() }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Trained {
    /// The classifier.
    pub model: Model,
    /// Photos that it learnt from.
    pub photos: usize,
    /// Accuracy on photos that the judged heads had not seen, 0..1.
    pub val_top1: f64,
    /// Every strength of regularization that was tried.
    pub tried: Vec<Tried>,
    /// The chosen one.
    pub lambda: f64,
    /// Views of each photo that the head was fitted to.
    pub views: usize,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
    /// Feature rows computed now, and all of them.
    pub computed: [usize; 2],
}

/// Fits a regularized linear head on a frozen backbone's features.
///
/// Photos of the test part are not touched. Where the data has a validation part, the strength of regularization is
/// chosen on it (on those of its photos that are no copies of training photos, nor of a group with them); else by
/// grouped, stratified cross-validation. The head that is returned is then fitted on all of the
/// training and validation photos; `val_top1` is what heads that had not seen the judged photos reached.
///
/// # Errors
/// [`Error::Data`] with fewer than two classes or no readable photo, [`Error::Interrupted`] when the watcher says so.
pub fn fit_head(
    data: &Dataset,
    backbone: &Model,
    options: &Options,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Trained> {
    data.require_two_classes()?;
    let backbone = adapt::adapt(backbone, &options.input)?;
    let samples: Vec<&Sample> = data.samples.iter().filter(|sample| sample.part != Part::Test).collect();
    let extractor = Extractor::new(&backbone)?;
    let mut cache = options.cache.as_deref().map(|folder| extractor.cache(folder));
    let views = options.views.unwrap_or(if samples.len() < ENOUGH_FOR_ONE_VIEW { 2 } else { 1 }).max(1);
    let extracted = extractor.extract(&samples, views, cache.as_mut(), threads, progress)?;
    if let Some(notice) = cache.as_mut().and_then(cache::FeatureCache::take_notice) {
        progress.notice(&notice);
    }
    let kept: Vec<&Sample> = extracted.kept.iter().map(|&index| samples[index]).collect();
    let labels: Vec<u32> = kept.iter().map(|sample| sample.class as u32).collect();
    every_class_has_a_photo(data, &samples, &extracted)?;
    let (folds, held_out) = folds(data, &kept, &extracted.hashes, options.seed, progress)?;
    let problem =
        Problem { labels: &labels, classes: data.classes.len(), folds: &folds, held_out: &held_out };
    let mut views = extracted.views;
    let mut fit = problem.solve(&extracted, views, threads, progress)?;
    if options.views.is_none() && views > 1 {
        let plain = problem.solve(&extracted, 1, threads, progress)?;
        if plain.beats(&fit, &labels) {
            progress
                .notice("mirrored photos led astray on held-out ones, so the head has not learnt from them");
            (views, fit) = (1, plain);
        }
    }
    let model = graft(&backbone, data, &kept, &extracted, &fit, views, options)?;
    Ok(Trained {
        photos: kept.len(),
        val_top1: fit.val_top1,
        lambda: fit.lambda,
        views,
        computed: [extracted.computed, extracted.rows.len() / extracted.width],
        skipped: extracted.skipped,
        tried: fit.tried,
        model,
    })
}

/// From so many photos on a mirrored view adds nothing that is worth its time and memory.
const ENOUGH_FOR_ONE_VIEW: usize = 10_000;

fn every_class_has_a_photo(data: &Dataset, samples: &[&Sample], extracted: &Extracted) -> Result<()> {
    let mut has_photo = vec![false; data.classes.len()];
    for &index in &extracted.kept {
        has_photo[samples[index].class] = true;
    }
    let Some(class) = has_photo.iter().position(|has| !has) else { return Ok(()) };
    let label = &data.classes[class];
    let unreadable = extracted
        .skipped
        .iter()
        .find(|skipped| samples.iter().any(|sample| sample.class == class && sample.path == skipped.path));
    let what = match unreadable {
        Some(Skipped { path, why }) => format!(
            "no photo of class “{label}” can be read ({}: {why}); repair them or remove the class",
            path.display()
        ),
        None => format!("class “{label}” has no training photo; add some or remove the class"),
    };
    Err(Error::data(&data.root, what))
}

/// Which photos judge which heads: a fold for each photo, and the folds that are held out in turn.
fn folds(
    data: &Dataset,
    kept: &[&Sample],
    hashes: &[[u8; 32]],
    seed: u64,
    progress: &dyn Progress,
) -> Result<(Vec<u32>, Vec<u32>)> {
    if kept.iter().all(|sample| sample.part != Part::Train) {
        return Err(Error::data(
            &data.root,
            "has validation photos but none to learn from; add some to train",
        ));
    }
    let groups = split::groups(kept, hashes);
    report(data, kept, &groups, progress);
    let classes: Vec<usize> = kept.iter().map(|sample| sample.class).collect();
    let count = data.classes.len();
    // The folds, and the first of them that is held out.
    let judges = apart(kept, &groups.ids, progress);
    let (folds, first): (Vec<usize>, _) = if judges.contains(&1) {
        (judges, 1)
    } else if kept.len() < FEWEST_FOR_HOLDOUT {
        (split::folds(&classes, &groups.ids, count, FOLDS, seed), 0)
    } else {
        let fraction = split::validation_fraction(kept.len());
        let held = split::holdout(&classes, &groups.ids, count, fraction, seed);
        (held.into_iter().map(usize::from).collect(), 1)
    };
    let mut sizes = [0; FOLDS];
    folds.iter().for_each(|&fold| sizes[fold] += 1);
    // With few groups some folds are empty.
    let held_out: Vec<u32> = (first..FOLDS).filter(|&fold| sizes[fold] > 0).map(|fold| fold as u32).collect();
    if held_out.is_empty() || sizes.contains(&kept.len()) {
        return Err(Error::data(
            &data.root,
            "no photo can be held out to check what is learnt from the others: all are copies of one, or of one \
             group; add photos, or group them otherwise",
        ));
    }
    Ok((folds.into_iter().map(|fold| fold as u32).collect(), held_out))
}

/// 1 for each photo of the validation part that has nothing in common with a training photo.
fn apart(kept: &[&Sample], groups: &[usize], progress: &dyn Progress) -> Vec<usize> {
    let learnt: HashSet<usize> = kept
        .iter()
        .zip(groups)
        .filter(|(sample, _)| sample.part == Part::Train)
        .map(|(_, &group)| group)
        .collect();
    let (mut folds, mut shared) = (Vec::with_capacity(kept.len()), 0);
    for (sample, group) in kept.iter().zip(groups) {
        let judges = sample.part == Part::Val && !learnt.contains(group);
        shared += usize::from(sample.part == Part::Val && !judges);
        folds.push(usize::from(judges));
    }
    if shared > 0 {
        progress.notice(&format!(
            "{shared} validation photos are copies of training photos, or of a group with them; they do not count in \
             the validation"
        ));
    }
    folds
}

const FOLDS: usize = 5;
/// From so many photos on one held-out part says enough, and folds would cost too much.
const FEWEST_FOR_HOLDOUT: usize = 2000;

fn report(data: &Dataset, kept: &[&Sample], groups: &split::Groups, progress: &dyn Progress) {
    if !groups.duplicates.is_empty() {
        let (a, b) = groups.duplicates[0];
        progress.notice(&format!(
            "{} photos are copies of others, such as {} and {}; no copy judges what was learnt from another",
            groups.duplicates.len(),
            kept[a].path.display(),
            kept[b].path.display()
        ));
    }
    for &(a, b) in groups.conflicting.iter().take(3) {
        progress.notice(&format!(
            "the same photo has two labels: {} is `{}`, {} is `{}`",
            kept[a].path.display(),
            data.classes[kept[a].class],
            kept[b].path.display(),
            data.classes[kept[b].class]
        ));
    }
}

/// What a head is fitted to, beside the features.
struct Problem<'a> {
    labels: &'a [u32],
    classes: usize,
    folds: &'a [u32],
    held_out: &'a [u32],
}

impl Problem<'_> {
    /// The head for the first `views` views of each photo.
    fn solve(
        &self,
        extracted: &Extracted,
        views: usize,
        threads: &Threads,
        progress: &dyn Progress,
    ) -> Result<Fit> {
        let width = extracted.width;
        let rows = if views == extracted.views {
            Cow::Borrowed(&extracted.rows)
        } else {
            let photos = extracted.rows.chunks_exact(extracted.views * width);
            Cow::Owned(photos.flat_map(|photo| &photo[..views * width]).copied().collect())
        };
        let photo: Vec<u32> =
            (0..self.labels.len() as u32).flat_map(|index| std::iter::repeat_n(index, views)).collect();
        let weight = vec![1.0; photo.len()];
        let features = Features { width, rows: &rows, photo: &photo, weight: &weight };
        progress.begin("head", 100);
        let done = AtomicUsize::new(0);
        let watch = |share: f32| {
            let percent = (share * 100.0) as usize;
            let before = done.fetch_max(percent, Ordering::Relaxed);
            progress.advance(percent.saturating_sub(before));
            !progress.cancelled()
        };
        let fit = threads
            .install(|| head::fit(&features, self.labels, self.classes, self.folds, self.held_out, &watch));
        progress.end();
        fit
    }
}

/// The backbone with the new head in the place of the old one.
fn graft(
    backbone: &Model,
    data: &Dataset,
    kept: &[&Sample],
    extracted: &Extracted,
    fit: &Fit,
    views: usize,
    options: &Options,
) -> Result<Model> {
    let unsupported = |error: penjing_runtime::Error| Error::Unsupported(error.to_string());
    let (old, features) = backbone
        .graph
        .classifier()
        .ok_or_else(|| Error::Unsupported("the backbone has no classifier".into()))?;
    let name = backbone.graph.node(old).name.clone();
    let mut graph = backbone.graph.up_to(features);
    let classes = data.classes.len();
    graph.push(&name, Op::Linear { out_features: classes, bias: true }, &[features]).map_err(unsupported)?;

    let mut weights = backbone.weights.clone();
    let stored = weights
        .insert(format!("{name}.weight"), Tensor::f32(&[classes, extracted.width], fit.head.weights.clone()));
    weights.insert(format!("{name}.bias"), Tensor::f32(&[classes], fit.head.bias.clone()));
    debug_assert!(stored.is_some(), "the old head had a weight");

    let recipe = format!(
        "head: multinomial logistic regression on frozen features, {views} views a photo, lambda {}",
        fit.lambda
    );
    let provenance = Provenance {
        penjing: env!("CARGO_PKG_VERSION").to_string(),
        recipe: backbone.provenance.recipe.iter().cloned().chain([recipe]).collect(),
        data_hash: Some(fingerprint(data, kept.iter().copied().zip(&extracted.hashes))),
        seed: Some(options.seed),
        val_top1: Some(fit.val_top1),
        ..backbone.provenance.clone()
    };
    let model = Model {
        arch: backbone.arch.clone(),
        graph,
        weights,
        pixels: backbone.pixels.clone(),
        labels: data.classes.clone(),
        calibration: Calibration { temperature: fit.temperature as f32 },
        provenance,
    };
    model.check().map_err(unsupported)?;
    Ok(model)
}

/// Hash over the photos' bytes and labels, whatever their names and order: what a model keeps of its data.
pub fn fingerprint<'a>(data: &Dataset, photos: impl Iterator<Item = (&'a Sample, &'a [u8; 32])>) -> String {
    let mut by_content: BTreeMap<(&str, &[u8; 32]), u64> = BTreeMap::new();
    for (sample, hash) in photos {
        *by_content.entry((&data.classes[sample.class], hash)).or_default() += 1;
    }
    let mut hasher = blake3::Hasher::new();
    for ((label, hash), count) in by_content {
        hasher.update(&(label.len() as u64).to_le_bytes());
        hasher.update(label.as_bytes());
        hasher.update(hash);
        hasher.update(&count.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model, progress::Quiet};

    fn dataset(samples: Vec<Sample>) -> Dataset {
        let classes = ["a", "b"].map(String::from).to_vec();
        Dataset { root: PathBuf::from("photos"), classes, samples, notices: Vec::new() }
    }

    #[test]
    fn a_group_is_on_one_side_of_every_split() {
        for photos in [80, FEWEST_FOR_HOLDOUT] {
            let sample = |i: usize| {
                let group = Some((i / 4).to_string());
                Sample { path: format!("{i}.png").into(), class: i / 4 % 2, part: Part::Train, group }
            };
            let data = dataset((0..photos).map(sample).collect());
            let hashes: Vec<[u8; 32]> =
                (0..photos).map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect();
            let kept: Vec<&Sample> = data.samples.iter().collect();
            let (fold, held_out) = folds(&data, &kept, &hashes, 0, &Quiet).unwrap();
            assert_eq!(held_out, if photos == 80 { vec![0, 1, 2, 3, 4] } else { vec![1] });
            assert!(fold.chunks(4).all(|group| group.iter().all(|f| *f == group[0])), "{photos} photos");
        }
    }

    #[test]
    fn photos_of_the_test_part_teach_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let sample = |i: usize| {
            let path = folder.path().join(format!("{i}.png"));
            let shade = |x: u32, y: u32| image::Rgb([(x * 6) as u8, (i * 8) as u8, (y * i as u32) as u8]);
            image::RgbImage::from_fn(40, 40, shade).save(&path).unwrap();
            let part = if i.is_multiple_of(3) { Part::Test } else { Part::Train };
            Sample { path, class: i % 2, part, group: None }
        };
        let with_test = dataset((0..24).map(sample).collect());
        let mut without = with_test.clone();
        without.samples.retain(|sample| sample.part == Part::Train);

        let input = Input { size: Some(32), ..Input::default() };
        let options = Options { input, views: Some(1), cache: None, ..Options::default() };
        let (backbone, threads) = (model::bundled().unwrap(), Threads::new(Some(1)).unwrap());
        let fit = |data: &Dataset| fit_head(data, &backbone, &options, &threads, &Quiet).unwrap();
        let (with_test, without) = (fit(&with_test), fit(&without));
        assert_eq!([with_test.photos, without.photos], [16; 2]);
        assert!(with_test.model == without.model, "the model depends on photos of the test part");
    }
}
