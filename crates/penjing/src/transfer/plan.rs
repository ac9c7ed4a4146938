//! Which recipe fits which data: a pure function of photos, backbone, flags and seed.

use penjing_runtime::{cost, file::Model, graph::Graph};
use serde::{Deserialize, Serialize};

use super::{Options, survey::learnable};
use crate::{
    data::{Dataset, decode},
    train::{
        augment::Augment,
        mix::Mix,
        optimizer::{Rates, Rule},
        tape::Statistics,
        trainer::{Early, Recipe},
    },
};

/// What is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipeKind {
    /// The head first; the whole network where held-out photos gain by it.
    Auto,
    /// A linear head on the frozen backbone's features.
    Head,
    /// The whole network from that head, at small rates, its running statistics frozen.
    Finetune,
    /// The whole network from that head, normalized by the batch's own statistics: for photos unlike the backbone's.
    Full,
    /// The whole network from random weights.
    Scratch,
}

/// What decides a recipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// Photos to learn from, those that judge included.
    pub photos: usize,
    /// Photos that judged the head.
    pub validated: usize,
    /// Photos of the smallest and of the largest class.
    pub smallest: usize,
    /// See `smallest`.
    pub largest: usize,
    /// Number of classes.
    pub classes: usize,
    /// Accuracy of the head on held-out photos: how near the backbone's photos are.
    pub head_top1: f64,
    /// Whether a mirrored photo still shows the same class.
    pub mirrors: bool,
    /// Height and width of the input in use.
    pub size: usize,
}

impl Facts {
    /// Of photos, so many of each class, for a backbone whose features nothing is known of.
    pub fn new(counts: &[usize], backbone: &Model) -> Self {
        Facts {
            photos: counts.iter().sum(),
            validated: 0,
            smallest: counts.iter().copied().min().unwrap_or(0),
            largest: counts.iter().copied().max().unwrap_or(0),
            classes: counts.len(),
            head_top1: 0.0,
            mirrors: true,
            size: backbone.pixels.height.min(backbone.pixels.width),
        }
    }

    /// Whether the backbone's features do not fit the photos well.
    fn is_far(&self) -> bool {
        self.head_top1 < FAR
    }

    /// Whether they fit them so well that only what is made of them need change.
    fn is_near(&self) -> bool {
        self.head_top1 >= NEAR
    }

    /// Why the head alone is enough, if it is: too few photos to learn more from or to see a difference, or nothing left
    /// to gain. With few photos that it tells apart well the whole network gained nothing either, on held-out photos of
    /// four sets.
    pub fn head_is_enough(&self) -> Option<String> {
        if self.photos < FEWEST {
            return Some(format!(
                "{} photos are too few to train the whole network; {FEWEST} would do",
                self.photos
            ));
        }
        let wrong = (self.validated as f64 * (1.0 - self.head_top1)).round() as usize;
        let known = if wrong == 0 {
            "nothing is left to gain"
        } else if wrong == 1 {
            "too few errors to see a gain by"
        } else if self.photos < FEW && self.is_near() {
            "so few photos rarely teach the whole network more than that; --recipe finetune tries it"
        } else {
            return None;
        };
        Some(format!("the head is wrong on {wrong} of {} held-out photos: {known}", self.validated))
    }

    /// The recipe of a kind for a network.
    pub fn recipe(
        &self,
        kind: RecipeKind,
        graph: &Graph,
        epochs: Option<u32>,
        balance: Option<f64>,
    ) -> Recipe {
        let statistics = match kind {
            RecipeKind::Full | RecipeKind::Scratch => Statistics::Batch,
            RecipeKind::Auto | RecipeKind::Head | RecipeKind::Finetune => Statistics::Frozen,
        };
        let scratch = kind == RecipeKind::Scratch;
        // A few hundred photos that the backbone's features fit are learnt by heart before they teach anything.
        let few = self.photos < FEW && !self.is_far() && !scratch;
        let rule = if few {
            Rule::Sgd { momentum: 0.9, nesterov: true }
        } else {
            Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
        };
        let rate = match (scratch, few) {
            (true, _) => 2e-3,
            (false, true) => 1e-2,
            (false, false) if self.is_far() => 5e-4,
            (false, false) => 1e-4,
        };
        let decay = match (scratch, few) {
            (true, _) => 0.05,
            (false, true) => 5e-5,
            (false, false) => 0.02,
        };
        let augment = match scratch {
            // A light network that starts from nothing has little to spare for photos that are hard to tell.
            true => Augment { scale: 0.7, jitter: 0.0, ..Augment::recommended(f64::INFINITY) },
            false => Augment::recommended(self.photos as f64 / self.classes as f64),
        };
        let size = if statistics == Statistics::Batch { self.size } else { training_size(self.size) };
        let early =
            (statistics == Statistics::Frozen && !few && !self.is_near()).then(|| early(size)).flatten();
        let batch = match statistics {
            Statistics::Frozen if self.photos < FEW_STEPS && !few => SMALL_BATCH,
            _ => BATCH,
        };
        let steps_per_epoch = (self.photos / batch).max(1) as f32;
        Recipe {
            epochs: f64::from(epochs.unwrap_or_else(|| self.epochs(scratch))),
            batch,
            at_once: batch,
            size,
            early,
            rule,
            decay,
            clip: Some(1.0),
            rates: Rates { head: rate, last: rate, middle: rate, first: rate },
            warmup: 0.1,
            floor: 0.01,
            // The head was fitted to plain labels; smoothing would first teach it to be less sure.
            smoothing: if scratch { 0.1 } else { 0.0 },
            augment: Augment { flip: augment.flip && self.mirrors, ..augment },
            mix: Mix { mixup: 0.0, cutmix: 0.0 },
            balance: balance.unwrap_or(if self.largest > 3 * self.smallest { 0.5 } else { 0.0 }),
            statistics,
            momentum: if scratch { 0.1 } else { (10.0 / steps_per_epoch).clamp(0.01, 0.1) },
            first: match self.kept() {
                Some(share) if statistics == Statistics::Frozen => after(graph, share),
                _ => 0,
            },
            half_life: if few { 0.25 } else { 0.1 },
            frugal: false,
            distill: None,
        }
    }

    /// The share of the multiply-adds in first layers that stay as they are, where the backbone's features fit: they say
    /// what every photo is made of, and not to go back through them saves more time than that share. Held-out groceries
    /// and flowers, 600 photos of each, were as likely with 0.3 as with none, in two thirds of the time; clothes and
    /// X-rays, which are far, less so.
    fn kept(&self) -> Option<f64> {
        match self.photos {
            0..FEW if self.is_near() => Some(0.6),
            0..FEW_STEPS if !self.is_far() => Some(0.3),
            _ => None,
        }
    }

    fn epochs(&self, scratch: bool) -> u32 {
        if scratch {
            return (400_000 / self.photos.max(1)).clamp(10, 200) as u32;
        }
        match self.photos {
            0..FEW if self.is_far() => 10,
            0..FEW => 6,
            FEW..1_000 if self.is_far() => 7,
            FEW..1_000 => 5,
            1_000..5_000 => 8,
            5_000..20_000 => 6,
            _ => 4,
        }
    }
}

/// The first layer with weights behind so large a share of all multiply-adds.
fn after(graph: &Graph, share: f64) -> usize {
    let layers = cost::layers(graph);
    let all: f64 = layers.iter().map(|layer| layer.macs as f64).sum();
    let mut before = 0.0;
    let behind = layers.iter().position(|layer| {
        let reached = layer.macs > 0 && before >= share * all;
        before += layer.macs as f64;
        reached
    });
    behind.unwrap_or(0)
}

/// Another input size for photos so small that the backbone's would only show their blur, where there are enough of
/// them to train the whole network; `None` for the backbone's own, which a classifier that goes on keeps.
pub fn size_for(data: &Dataset, options: &Options, size: usize) -> Option<usize> {
    let whole = matches!(options.recipe, RecipeKind::Auto | RecipeKind::Finetune | RecipeKind::Full);
    let photos = learnable(data);
    let given = options.input.size.is_some() || options.extend;
    if given || !whole || photos.len() < FEWEST_FOR_SMALL || size <= SMALL_SIZE {
        return None;
    }
    let looked_at = photos.iter().step_by((photos.len() / LOOKED_AT).max(1));
    let mut sides: Vec<u32> =
        looked_at.filter_map(|sample| decode::dimensions(&sample.path)).map(|[w, h]| w.min(h)).collect();
    sides.sort_unstable();
    sides.get(sides.len() / 2).is_some_and(|&side| side < SMALL_SIDE).then_some(SMALL_SIZE)
}

/// Photos are small when half of them have a side below this.
const SMALL_SIDE: u32 = 96;
/// What they are seen at (Big Transfer, arXiv 1912.11370).
const SMALL_SIZE: usize = 128;
const FEWEST_FOR_SMALL: usize = 1_000;
const LOOKED_AT: usize = 101;

/// Where the head is less often right, the features do not fit.
const FAR: f64 = 0.9;
/// Where it is as often right, they fit well.
const NEAR: f64 = 0.95;
const FEWEST: usize = 100;
/// Fewer are learnt gently, if at all: see [`Facts::head_is_enough`].
pub(super) const FEW: usize = 500;
const BATCH: usize = 32;
/// Fewer photos are too few steps of whole batches: half of that made held-out photos of three sets of 500 to 600
/// likelier, those of two as likely, for hardly more time.
const FEW_STEPS: usize = 1_000;
const SMALL_BATCH: usize = 16;
/// Smaller inputs leave the last maps so few places that a size less changes what the features mean.
const LEAST_TO_SHRINK: usize = 128;

/// A network trained on crops sees things larger than it will in use, so it is trained at about 0.86 of the size
/// (Touvron et al., arXiv 1906.06423), which also takes a quarter less time. Statistics are those of the size in use.
fn training_size(size: usize) -> usize {
    if size < LEAST_TO_SHRINK { size } else { (size as f64 * 0.86 / 16.0).round() as usize * 16 }
}

/// The first half of the epochs at two thirds of the size takes a quarter less time, where the features must change
/// anyway: held-out photos of clothes and of rubbish were classified as rightly as without. Features that fit well are
/// disturbed by it: held-out flowers and groceries were less likely than without.
fn early(size: usize) -> Option<Early> {
    (size >= LEAST_TO_BEGIN_SMALL).then(|| Early { size: (size / 24) * 16, share: 0.5 })
}

/// Smaller inputs would begin with too little to see.
const LEAST_TO_BEGIN_SMALL: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::{Arch, Config};

    fn network() -> Graph {
        let (arch, width) = Arch::named("mobilenet_v2_x0.5").unwrap();
        arch.graph(&Config { width, size: 64, ..arch.config(10) }).unwrap()
    }

    fn facts(photos: usize, head_top1: f64) -> Facts {
        Facts {
            photos,
            validated: photos,
            smallest: photos / 10,
            largest: photos / 10,
            classes: 10,
            head_top1,
            mirrors: true,
            size: 224,
        }
    }

    #[test]
    fn the_whole_network_is_trained_where_it_can_gain() {
        assert!(facts(99, 0.5).head_is_enough().is_some());
        assert!(facts(200, 1.0).head_is_enough().is_some());
        assert!(
            facts(200, 0.995)
                .head_is_enough()
                .unwrap()
                .contains("wrong on 1 of 200 held-out photos: too few")
        );
        assert!(facts(499, 0.95).head_is_enough().is_some());
        assert_eq!(facts(499, 0.94).head_is_enough(), None);
        assert_eq!(facts(500, 0.97).head_is_enough(), None);
    }

    #[test]
    fn recipes_follow_the_data() {
        let graph = network();
        let recipe = facts(719, 0.96).recipe(RecipeKind::Finetune, &graph, None, None);
        assert_eq!((recipe.size, recipe.statistics, recipe.balance), (192, Statistics::Frozen, 0.0));
        assert!(recipe.augment.flip);
        // The few that a head tells apart are learnt from gently, those it does not are not.
        let rule =
            |photos, head_top1| facts(photos, head_top1).recipe(RecipeKind::Finetune, &graph, None, None);
        assert!(matches!(rule(250, 0.96).rule, Rule::Sgd { .. }));
        assert!(matches!(rule(250, 0.80).rule, Rule::AdamW { .. }));
        assert_eq!([0.96, 0.80].map(|top1| rule(250, top1).epochs), [6.0, 10.0]);
        assert_eq!([0.96, 0.80].map(|top1| rule(800, top1).epochs), [5.0, 7.0]);
        assert_eq!([0.96, 0.80].map(|top1| rule(800, top1).rates.last), [1e-4, 5e-4]);
        assert_eq!([(800, 0.96), (999, 0.8), (250, 0.8)].map(|(n, top1)| rule(n, top1).batch), [16; 3]);
        assert_eq!([(1000, 0.96), (250, 0.96)].map(|(n, top1)| rule(n, top1).batch), [32; 2]);
        assert_eq!(facts(800, 0.8).recipe(RecipeKind::Full, &graph, None, None).batch, 32);
        // Few photos that the features fit leave the first layers as they are.
        let kept = |photos, top1| rule(photos, top1).first;
        let some = kept(800, 0.96);
        assert!(0 < some && some < kept(250, 0.96));
        assert_eq!([kept(800, 0.91), kept(800, 0.89), kept(1000, 0.96)], [some, 0, 0]);
        assert_eq!(facts(250, 0.96).recipe(RecipeKind::Full, &graph, None, None).first, 0);
        let signs = Facts { mirrors: false, smallest: 10, ..facts(4299, 0.68) };
        let recipe = signs.recipe(RecipeKind::Full, &graph, Some(3), None);
        assert_eq!((recipe.epochs, recipe.statistics, recipe.balance), (3.0, Statistics::Batch, 0.5));
        assert!(!recipe.augment.flip);
        assert_eq!(facts(719, 0.96).recipe(RecipeKind::Scratch, &graph, None, Some(1.0)).balance, 1.0);
        // Photos are seen small at first where the features do not fit well, unless inputs are small anyway.
        assert_eq!(rule(800, 0.94).early, Some(Early { size: 128, share: 0.5 }));
        assert_eq!([(800, 0.96), (250, 0.94)].map(|(photos, top1)| rule(photos, top1).early), [None, None]);
        assert_eq!((early(112), early(160).unwrap().size), (None, 96));
        for (size, trained) in [(224, 192), (128, 112), (96, 96), (32, 32)] {
            assert_eq!(training_size(size), trained);
        }
    }

    #[test]
    fn small_photos_are_seen_small_unless_the_size_is_known() {
        use crate::{
            data::{Part, Sample},
            transfer::Input,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.png");
        image::RgbImage::new(48, 64).save(&path).unwrap();
        let sample = Sample { path, class: 0, part: Part::Train, group: None };
        let data = |photos: usize| Dataset {
            root: folder.path().into(),
            classes: vec!["a".into(), "b".into()],
            samples: vec![sample.clone(); photos],
            notices: Vec::new(),
        };
        let usual = Options::default();
        assert_eq!(size_for(&data(1000), &usual, 224), Some(128));
        assert_eq!(size_for(&data(999), &usual, 224), None);
        assert_eq!(size_for(&data(1000), &usual, 128), None);
        let goes_on = Options { extend: true, ..usual.clone() };
        assert_eq!(size_for(&data(1000), &goes_on, 224), None, "a classifier that goes on keeps its size");
        let given = Options { input: Input { size: Some(224), ..Input::default() }, ..usual };
        assert_eq!(size_for(&data(1000), &given, 224), None);
    }

    #[test]
    fn layers_are_kept_up_to_a_share_of_the_work() {
        let graph = network();
        let macs: Vec<f64> = cost::layers(&graph).iter().map(|layer| layer.macs as f64).collect();
        let all: f64 = macs.iter().sum();
        for share in [0.0, 0.3, 0.6, 0.9] {
            let first = after(&graph, share);
            let before: f64 = macs[..first].iter().sum();
            assert!(macs[first] > 0.0, "{share}: a layer without weights");
            assert!(before >= share * all, "{share}: {before} of {all}");
            let last = macs[..first].iter().rposition(|&macs| macs > 0.0).unwrap_or(0);
            let fewer: f64 = macs[..last].iter().sum();
            assert!(first <= 1 || fewer < share * all, "{share}: a layer too many");
        }
    }
}
