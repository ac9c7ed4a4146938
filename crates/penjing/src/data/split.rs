//! Splits that keep alike photos together.

use super::{Dataset, Part, Sample};
use crate::progress::Progress;
use crate::random::SplitMix64;
use crate::threads::Threads;
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// Which photos belong together, from [`groups`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// The group of each photo; dense, numbered by first appearance.
    pub ids: Vec<usize>,
    /// Photos with the same bytes and the same label: (the first, a later one).
    pub duplicates: Vec<(usize, usize)>,
    /// Photos with the same bytes but different labels: (the first, a later one).
    pub conflicting: Vec<(usize, usize)>,
}

/// Joins the photos that share a group name or their bytes, directly or through others.
///
/// `hashes[i]` is the [`content_hash`] of `samples[i]`. Each later copy of a photo is paired with the first one.
///
/// # Panics
/// If the lengths differ.
pub fn groups(samples: &[&Sample], hashes: &[[u8; 32]]) -> Groups {
    assert_eq!(samples.len(), hashes.len(), "one hash per photo");
    let mut sets = DisjointSets::new(samples.len());
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut by_hash: HashMap<&[u8; 32], usize> = HashMap::new();
    let (mut duplicates, mut conflicting) = (Vec::new(), Vec::new());
    for (i, (sample, hash)) in samples.iter().zip(hashes).enumerate() {
        if let Some(name) = &sample.group {
            sets.join(*by_name.entry(name).or_insert(i), i);
        }
        let first = *by_hash.entry(hash).or_insert(i);
        if first != i {
            sets.join(first, i);
            let same_label = samples[first].class == sample.class;
            if same_label { &mut duplicates } else { &mut conflicting }.push((first, i));
        }
    }
    let mut numbers: HashMap<usize, usize> = HashMap::new();
    let ids = (0..samples.len())
        .map(|i| {
            let next = numbers.len();
            *numbers.entry(sets.root(i)).or_insert(next)
        })
        .collect();
    Groups { ids, duplicates, conflicting }
}

/// BLAKE3 of a file's bytes, read in pieces.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn content_hash(path: &Path) -> Result<[u8; 32]> {
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(|e| Error::io(path, "read", e))?;
    Ok(*hasher.finalize().as_bytes())
}

/// The [`content_hash`] of each photo; what cannot be read is a copy of nothing.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn content_hashes(
    samples: &[&Sample],
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Vec<[u8; 32]>> {
    let alone = |sample: &Sample| *blake3::hash(sample.path.as_os_str().as_encoded_bytes()).as_bytes();
    let hash = |sample: &&Sample| {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        progress.advance(1);
        Ok(content_hash(&sample.path).unwrap_or_else(|_| alone(sample)))
    };
    progress.begin("looking for copies", samples.len());
    let hashes = threads.install(|| samples.par_iter().map(hash).collect());
    progress.end();
    hashes
}

/// The share of the training photos to set aside for validation when the data set has no part for it:
/// 0.20 below 2,000 photos, 0.15 below 10,000, else 0.10.
pub fn validation_fraction(photos: usize) -> f64 {
    match photos {
        0..2_000 => 0.20,
        2_000..10_000 => 0.15,
        _ => 0.10,
    }
}

/// The same photos where some judge: a [share](validation_fraction) of those to learn from is set aside, alike photos
/// together. `None` where a validation part is there already, or no photo can be set aside.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn with_judges(
    data: &Dataset,
    seed: u64,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Option<Dataset>> {
    if data.part(Part::Val).next().is_some() {
        return Ok(None);
    }
    let (places, samples): (Vec<usize>, Vec<&Sample>) = data.part(Part::Train).unzip();
    let hashes = content_hashes(&samples, threads, progress)?;
    let classes: Vec<usize> = samples.iter().map(|sample| sample.class).collect();
    let groups = groups(&samples, &hashes);
    let fraction = validation_fraction(samples.len());
    let aside = holdout(&classes, &groups.ids, data.classes.len(), fraction, seed);
    let mut split = data.clone();
    for (place, aside) in places.into_iter().zip(&aside) {
        if *aside {
            split.samples[place].part = Part::Val;
        }
    }
    Ok(aside.contains(&true).then_some(split))
}

/// Deals photos into `k` folds, whole groups at a time, so that each fold has about the same share of each class.
///
/// Returns the fold of each photo. Groups are dealt from the largest to the smallest, in a random order among those of
/// equal size, each to the fold that keeps Σ over classes and folds of (share of the class in the fold)² smallest.
/// A class with `k` groups or more is in every fold, provided its groups hold no other class. The result depends on
/// the arguments alone.
///
/// # Panics
/// If `k` is 0, the lengths differ, or a class is not below `n_classes`.
pub fn folds(classes: &[usize], groups: &[usize], n_classes: usize, k: usize, seed: u64) -> Vec<usize> {
    assert!(k > 0, "at least one fold");
    let table = GroupTable::new(classes, groups, n_classes);
    let mut order = table.shuffled(seed);
    order.sort_by_key(|&g| std::cmp::Reverse(table.size(g)));

    let mut in_fold = vec![0usize; k * n_classes];
    let mut fold_size = vec![0usize; k];
    let mut fold_of_group = vec![0; table.members.len()];
    for g in order {
        // Adding n photos of a class of N to a fold that has x of them adds 2·n·x/N² and a term equal in all folds.
        let cost = |fold: usize| -> f64 {
            let class_cost = |&(class, n): &(usize, usize)| {
                let total = table.class_size[class] as f64;
                n as f64 * in_fold[fold * n_classes + class] as f64 / (total * total)
            };
            table.members[g].iter().map(class_cost).sum()
        };
        let best = (0..k)
            .map(|fold| (cost(fold), fold_size[fold], fold))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            .map_or(0, |(_, _, fold)| fold);
        for &(class, n) in &table.members[g] {
            in_fold[best * n_classes + class] += n;
        }
        fold_size[best] += table.size(g);
        fold_of_group[g] = best;
    }
    table.of_photo.iter().map(|&g| fold_of_group[g]).collect()
}

/// Sets about `fraction` of each class aside for validation, whole groups at a time; `true` marks validation.
///
/// Groups come in random order; one is set aside if that brings the classes in it closer to their share. Afterwards each
/// class of three groups or more that got none gives its smallest group. No class loses its last training photo: a
/// class in a single group stays in training. The result depends on the arguments alone.
///
/// # Panics
/// If the lengths differ or a class is not below `n_classes`.
pub fn holdout(classes: &[usize], groups: &[usize], n_classes: usize, fraction: f64, seed: u64) -> Vec<bool> {
    let table = GroupTable::new(classes, groups, n_classes);
    let mut aside = vec![false; table.members.len()];
    if fraction > 0.0 {
        let mut taken = vec![0usize; n_classes];
        let fits = |g: usize, taken: &[usize]| {
            table.members[g].iter().all(|&(class, n)| taken[class] + n < table.class_size[class])
        };
        let order = table.shuffled(seed);
        for &g in &order {
            // The change of Σ (taken − share)²/size when the group is taken.
            let change = |&(class, n): &(usize, usize)| {
                let size = table.class_size[class] as f64;
                let n = n as f64;
                n * (2.0 * (taken[class] as f64 - fraction * size) + n) / size
            };
            if table.members[g].iter().map(change).sum::<f64>() < 0.0 && fits(g, &taken) {
                table.take(g, &mut aside, &mut taken);
            }
        }
        let mut groups_of_class = vec![0usize; n_classes];
        for &(class, _) in table.members.iter().flatten() {
            groups_of_class[class] += 1;
        }
        for class in 0..n_classes {
            if taken[class] > 0 || groups_of_class[class] < 3 {
                continue;
            }
            let smallest = order
                .iter()
                .filter(|&&g| table.members[g].iter().any(|m| m.0 == class) && fits(g, &taken))
                .min_by_key(|&&g| table.size(g));
            if let Some(&g) = smallest {
                table.take(g, &mut aside, &mut taken);
            }
        }
    }
    table.of_photo.iter().map(|&g| aside[g]).collect()
}

/// How many photos of which class each group holds.
struct GroupTable {
    /// Dense group number of each photo, by first appearance.
    of_photo: Vec<usize>,
    /// For each group its (class, photos), by class.
    members: Vec<Vec<(usize, usize)>>,
    class_size: Vec<usize>,
}

impl GroupTable {
    fn new(classes: &[usize], groups: &[usize], n_classes: usize) -> Self {
        assert_eq!(classes.len(), groups.len(), "one group per photo");
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut class_size = vec![0; n_classes];
        let mut members: Vec<Vec<(usize, usize)>> = Vec::new();
        let mut of_photo = Vec::with_capacity(groups.len());
        for (&class, group) in classes.iter().zip(groups) {
            let g = *numbers.entry(*group).or_insert(members.len());
            if g == members.len() {
                members.push(Vec::new());
            }
            of_photo.push(g);
            class_size[class] += 1;
            match members[g].binary_search_by_key(&class, |m| m.0) {
                Ok(at) => members[g][at].1 += 1,
                Err(at) => members[g].insert(at, (class, 1)),
            }
        }
        Self { of_photo, members, class_size }
    }

    /// Photos in a group.
    fn size(&self, group: usize) -> usize {
        self.members[group].iter().map(|m| m.1).sum()
    }

    /// All groups in random order.
    fn shuffled(&self, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        SplitMix64::new(seed).shuffle(&mut order);
        order
    }

    fn take(&self, group: usize, aside: &mut [bool], taken: &mut [usize]) {
        aside[group] = true;
        for &(class, n) in &self.members[group] {
            taken[class] += n;
        }
    }
}

/// Union-find with path halving; a set's root is its smallest member.
struct DisjointSets(Vec<usize>);

impl DisjointSets {
    fn new(n: usize) -> Self {
        Self((0..n).collect())
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dataset, Part};
    use super::*;
    use crate::progress::Quiet;
    use std::collections::HashSet;

    /// The user wants the work to stop.
    struct Stop;

    impl Progress for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }

    fn sample(class: usize, group: Option<&str>) -> Sample {
        Sample { path: "p.jpg".into(), class, part: Part::Train, group: group.map(Into::into) }
    }

    /// Random labels and groups; groups hold one class unless `mixed`.
    fn random_set(seed: u64, mixed: bool) -> (Vec<usize>, Vec<usize>, usize) {
        let mut random = SplitMix64::new(seed);
        let n_classes = 1 + random.below(12);
        let (mut classes, mut groups) = (Vec::new(), Vec::new());
        for group in 0..20 + random.below(300) {
            let class = random.below(n_classes);
            for _ in 0..1 + random.below(6) {
                classes.push(if mixed { random.below(n_classes) } else { class });
                // Sparse and out of order, as a caller may number them.
                groups.push(usize::MAX - 7 * group);
            }
        }
        (classes, groups, n_classes)
    }

    fn assert_whole_groups<T: Eq + std::hash::Hash>(groups: &[usize], side: &[T]) {
        let sides: HashSet<_> = groups.iter().zip(side).collect();
        let distinct: HashSet<_> = groups.iter().collect();
        assert_eq!(sides.len(), distinct.len(), "a group is on two sides");
    }

    fn groups_per_class(classes: &[usize], groups: &[usize], n_classes: usize) -> Vec<usize> {
        let mut sets = vec![HashSet::new(); n_classes];
        for (&class, group) in classes.iter().zip(groups) {
            sets[class].insert(group);
        }
        sets.iter().map(HashSet::len).collect()
    }

    #[test]
    fn names_and_bytes_join_across_each_other() {
        let samples = [
            sample(0, Some("x")),
            sample(1, None),
            sample(0, Some("x")),
            sample(0, Some("y")),
            sample(1, None),
            sample(0, None),
        ];
        let hashes = [1, 2, 3, 3, 1, 2].map(|b| [b; 32]);
        let found = groups(&samples.each_ref(), &hashes);
        // 0–2 by name, 2–3 and 0–4 by bytes; 1–5 by bytes.
        assert_eq!(found.ids, [0, 1, 0, 0, 0, 1]);
        assert_eq!(found.duplicates, [(2, 3)]);
        assert_eq!(found.conflicting, [(0, 4), (1, 5)]);
        assert_eq!(groups(&[], &[]).ids, [0usize; 0]);
    }

    #[test]
    fn folds_keep_groups_whole_and_classes_even() {
        for seed in 0..60 {
            for mixed in [false, true] {
                let (classes, groups, n_classes) = random_set(seed, mixed);
                let k = 2 + seed as usize % 5;
                let fold = folds(&classes, &groups, n_classes, k, seed);
                assert_whole_groups(&groups, &fold);
                assert_eq!(fold, folds(&classes, &groups, n_classes, k, seed));
                let mut count = vec![vec![0usize; k]; n_classes];
                for (&c, &f) in classes.iter().zip(&fold) {
                    count[c][f] += 1;
                }
                let n_groups = groups_per_class(&classes, &groups, n_classes);
                for class in 0..n_classes {
                    let even = count[class].iter().sum::<usize>() as f64 / k as f64;
                    for &n in &count[class] {
                        assert!(
                            mixed || n_groups[class] < k || n > 0,
                            "seed {seed}: class {class} misses a fold"
                        );
                        // Greedy dealing of whole groups is off by less than the largest group.
                        assert!(mixed || (n as f64 - even).abs() <= 6.0, "seed {seed}: {n} of {even}");
                        assert!((n as f64 - even).abs() <= 12.0, "seed {seed}: {n} of {even}");
                    }
                }
            }
        }
    }

    #[test]
    fn seeds_deal_differently() {
        let classes: Vec<usize> = (0..100).map(|i| i % 4).collect();
        let groups: Vec<usize> = (0..100).collect();
        assert_ne!(folds(&classes, &groups, 4, 5, 1), folds(&classes, &groups, 4, 5, 2));
        assert_ne!(holdout(&classes, &groups, 4, 0.2, 1), holdout(&classes, &groups, 4, 0.2, 2));
        // Single photos divide evenly: 25 per class, 5 in each fold and 5 set aside.
        let aside = holdout(&classes, &groups, 4, 0.2, 1);
        for class in 0..4 {
            assert_eq!(classes.iter().zip(&aside).filter(|&(&c, &v)| c == class && v).count(), 5);
        }
    }

    #[test]
    fn holdout_keeps_groups_whole_and_every_class_in_training() {
        for seed in 0..60 {
            for mixed in [false, true] {
                for fraction in [0.1, 0.2, 0.5, 0.9] {
                    let (classes, groups, n_classes) = random_set(seed, mixed);
                    let aside = holdout(&classes, &groups, n_classes, fraction, seed);
                    assert_whole_groups(&groups, &aside);
                    assert_eq!(aside, holdout(&classes, &groups, n_classes, fraction, seed));
                    let n_groups = groups_per_class(&classes, &groups, n_classes);
                    for (class, &n_groups) in n_groups.iter().enumerate() {
                        let of_class = || classes.iter().zip(&aside).filter(|(c, _)| **c == class);
                        let (total, val) = (of_class().count(), of_class().filter(|(_, v)| **v).count());
                        assert!(
                            total == 0 || val < total,
                            "seed {seed}: class {class} has nothing to train on"
                        );
                        assert!(
                            n_groups < 3 || val > 0 || mixed,
                            "seed {seed}: class {class} is not validated"
                        );
                        let share = fraction * total as f64;
                        assert!(
                            (val as f64 - share).abs() <= if mixed { 12.0 } else { 6.0 },
                            "{val} of {share}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn holdout_leaves_tiny_classes_in_training() {
        // One photo; two photos in one group; two groups; three groups.
        let classes = [0, 1, 1, 2, 2, 3, 3, 3];
        let groups = [0, 1, 1, 2, 3, 4, 5, 6];
        for seed in 0..20 {
            let aside = holdout(&classes, &groups, 4, 0.1, seed);
            assert_eq!(aside.iter().filter(|v| **v).count(), 1);
            assert!(aside[5..].contains(&true));
            assert!(!holdout(&classes, &groups, 4, 0.0, seed).contains(&true));
        }
        assert!(holdout(&[], &[], 0, 0.2, 0).is_empty());
        assert!(folds(&[], &[], 0, 5, 0).is_empty());
    }

    #[test]
    fn copies_of_a_photo_never_straddle() {
        let dir = tempfile::tempdir().unwrap();
        let mut random = SplitMix64::new(3);
        for class in ["hoja 🍁", "ひと葉"] {
            std::fs::create_dir(dir.path().join(class)).unwrap();
            for photo in 0..60 {
                let byte = random.below(40) as u8;
                std::fs::write(dir.path().join(class).join(format!("{photo}.jpg")), vec![byte; 100_000])
                    .unwrap();
            }
        }
        let data = Dataset::open(dir.path(), None).unwrap();
        let samples: Vec<&Sample> = data.samples.iter().collect();
        let hashes: Vec<_> = samples.iter().map(|s| content_hash(&s.path).unwrap()).collect();
        assert_eq!(hashes[0], *blake3::hash(&std::fs::read(&samples[0].path).unwrap()).as_bytes());
        let found = groups(&samples, &hashes);
        let distinct = hashes.iter().collect::<HashSet<_>>().len();
        assert_eq!(found.ids.iter().max(), Some(&(distinct - 1)));
        assert_eq!(found.duplicates.len() + found.conflicting.len(), 120 - distinct);
        assert!(!found.conflicting.is_empty());
        let classes: Vec<usize> = samples.iter().map(|s| s.class).collect();
        for seed in 0..20 {
            let fold = folds(&classes, &found.ids, 2, 5, seed);
            let aside = holdout(&classes, &found.ids, 2, 0.2, seed);
            for &(a, b) in found.duplicates.iter().chain(&found.conflicting) {
                assert_eq!((fold[a], aside[a]), (fold[b], aside[b]));
            }
        }
        // As are those that are set aside where no part is for validation.
        let threads = Threads::new(Some(2)).unwrap();
        let judged = |data: &Dataset| with_judges(data, 1, &threads, &Quiet).unwrap();
        let split = judged(&data).unwrap();
        let part = |photo: usize| split.samples[photo].part;
        assert!(found.duplicates.iter().chain(&found.conflicting).all(|&(a, b)| part(a) == part(b)));
        let judges = split.counts(Part::Val);
        assert!(judges.iter().all(|count| (1..60).contains(count)), "{judges:?}");
        assert!(judged(&split).is_none() && judged(&data).unwrap().samples == split.samples);
        assert!(matches!(with_judges(&data, 1, &threads, &Stop), Err(Error::Interrupted)));
        let error = content_hash(&dir.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("absent: cannot open"), "{error}");
    }

    #[test]
    fn validation_shares() {
        assert_eq!([0, 1_999, 2_000, 9_999, 10_000].map(validation_fraction), [0.2, 0.2, 0.15, 0.15, 0.1]);
    }
}
