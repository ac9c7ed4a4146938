//! The photos of a data set that can be learnt from, and which of them judge what is learnt from the others.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

use penjing_runtime::pixels::Pixels;

use crate::{
    Error, Result,
    data::{Dataset, Part, Sample, Skipped, split},
    progress::Progress,
    threads::Threads,
    train::feed::{Photo, key, read},
};

/// The photos to learn from, each in a fold; the folds of `held_out` judge in turn.
#[derive(Debug)]
pub struct Survey<'a> {
    /// The data set.
    pub data: &'a Dataset,
    /// The photos that can be read, none of the test part.
    pub kept: Vec<&'a Sample>,
    /// The class of each.
    pub labels: Vec<u32>,
    /// BLAKE3 of each file.
    pub hashes: Vec<[u8; 32]>,
    /// The group of each: alike photos, which are held out together.
    pub groups: Vec<usize>,
    /// The fold of each.
    pub folds: Vec<u32>,
    /// The folds that are held out in turn.
    pub held_out: Vec<u32>,
    /// BLAKE3 of each photo of the test part.
    pub tested: Vec<[u8; 32]>,
    /// Whether each judges the whole network, round by round; every round leaves every class photos to learn from.
    rounds: Vec<Vec<bool>>,
}

impl<'a> Survey<'a> {
    /// Splits `samples`, of which those at `kept` can be read and have these hashes.
    ///
    /// # Errors
    /// [`Error::Data`] when a class has no readable photo or none can be held out.
    pub fn new(
        data: &'a Dataset,
        samples: &[&'a Sample],
        kept: &[usize],
        hashes: Vec<[u8; 32]>,
        skipped: &[Skipped],
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Self> {
        every_class_has_a_photo(data, samples, kept, skipped)?;
        let kept: Vec<&Sample> = kept.iter().map(|&index| samples[index]).collect();
        let labels = kept.iter().map(|sample| sample.class as u32).collect();
        let groups = split::groups(&kept, &hashes);
        report(data, &kept, &groups, progress);
        let groups = groups.ids;
        let (folds, held_out) = folds(data, &kept, &groups, seed, progress)?;
        let classes: Vec<usize> = kept.iter().map(|sample| sample.class).collect();
        let rounds = rounds(&classes, data.classes.len(), &folds, &held_out);
        Ok(Survey { data, kept, labels, hashes, groups, folds, held_out, tested: Vec::new(), rounds })
    }

    /// Looks at the photos of the test part, and says how many of them are learnt from in another guise.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn look_at_the_test(&mut self, threads: &Threads, progress: &dyn Progress) -> Result<()> {
        let (_, test): (Vec<usize>, Vec<&Sample>) = self.data.part(Part::Test).unzip();
        if test.is_empty() {
            return Ok(());
        }
        self.tested = split::content_hashes(&test, threads, progress)?;
        let hashes: HashSet<&[u8; 32]> = self.hashes.iter().collect();
        let groups: HashSet<&str> = self.kept.iter().filter_map(|sample| sample.group.as_deref()).collect();
        let known = |(sample, hash): &(&&Sample, &[u8; 32])| {
            hashes.contains(hash) || sample.group.as_deref().is_some_and(|group| groups.contains(group))
        };
        match test.iter().zip(&self.tested).filter(known).count() {
            0 => {}
            copies => progress.notice(&format!(
                "{copies} of {} test photos are copies of photos to learn from, or of a group with them; the test will \
                 flatter the model",
                test.len()
            )),
        }
        Ok(())
    }

    /// Reads every photo and decodes it for `pixels`, for training that needs no features. Gives also those that cannot be read.
    ///
    /// # Errors
    /// As [`Survey::new`], and [`Error::Interrupted`].
    pub fn read(
        data: &'a Dataset,
        pixels: &Pixels,
        seed: u64,
        threads: &Threads,
        progress: &dyn Progress,
    ) -> Result<(Self, Vec<Skipped>)> {
        let samples = learnable(data);
        let paths: Vec<&Path> = samples.iter().map(|sample| &*sample.path).collect();
        let (mut kept, mut hashes, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for (index, photo) in read(&paths, pixels, threads, progress)?.into_iter().enumerate() {
            match photo {
                Ok(hash) => {
                    kept.push(index);
                    hashes.push(hash);
                }
                Err(error) => skipped.push(Skipped::new(paths[index], &error)),
            }
        }
        let survey = Survey::new(data, &samples, &kept, hashes, &skipped, seed, progress)?;
        Ok((survey, skipped))
    }

    /// How many rounds there are of learning from some photos and judging on the others.
    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The photos that judge the whole network in a round, and those that it learns from then; by their place.
    pub fn round(&self, round: usize) -> [Vec<usize>; 2] {
        let judges = &self.rounds[round];
        [true, false].map(|held| (0..self.kept.len()).filter(|&photo| judges[photo] == held).collect())
    }

    /// Hash of the photos in their order, and of what each is for.
    pub fn split_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (photo, (hash, fold)) in self.hashes.iter().zip(&self.folds).enumerate() {
            hasher.update(hash);
            hasher.update(&fold.to_le_bytes());
            self.rounds.iter().for_each(|judges| _ = hasher.update(&[u8::from(judges[photo])]));
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Photos as training takes them.
    pub fn photos(&self, places: &[usize]) -> Vec<Photo> {
        let photo = |&place: &usize| Photo {
            path: self.kept[place].path.clone(),
            class: Some(self.labels[place]),
            key: key(&self.hashes[place]),
        };
        places.iter().map(photo).collect()
    }

    /// Photos of each class.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.data.classes.len()];
        self.labels.iter().for_each(|&class| counts[class as usize] += 1);
        counts
    }

    /// [`fingerprint`] of the photos.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.data, self.kept.iter().copied().zip(&self.hashes))
    }
}

/// The photos that may be learnt from.
pub fn learnable(data: &Dataset) -> Vec<&Sample> {
    data.samples.iter().filter(|sample| sample.part != Part::Test).collect()
}

fn every_class_has_a_photo(
    data: &Dataset,
    samples: &[&Sample],
    kept: &[usize],
    skipped: &[Skipped],
) -> Result<()> {
    let mut has_photo = vec![false; data.classes.len()];
    for &index in kept {
        has_photo[samples[index].class] = true;
    }
    let Some(class) = has_photo.iter().position(|has| !has) else { return Ok(()) };
    let label = &data.classes[class];
    let unreadable = skipped
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
    groups: &[usize],
    seed: u64,
    progress: &dyn Progress,
) -> Result<(Vec<u32>, Vec<u32>)> {
    if kept.iter().all(|sample| sample.part != Part::Train) {
        return Err(Error::data(
            &data.root,
            "has validation photos but none to learn from; add some to train",
        ));
    }
    let classes: Vec<usize> = kept.iter().map(|sample| sample.class).collect();
    let count = data.classes.len();
    // The folds, and the first of them that is held out.
    let judges = apart(kept, groups, progress);
    let (folds, first): (Vec<usize>, _) = if judges.contains(&1) {
        (judges, 1)
    } else if kept.len() < FEWEST_FOR_HOLDOUT {
        (split::folds(&classes, groups, count, FOLDS, seed), 0)
    } else {
        let fraction = split::validation_fraction(kept.len());
        let held = split::holdout(&classes, groups, count, fraction, seed);
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

/// Which photos judge the whole network: of the folds that are held out and leave every class photos to learn from, the
/// first ones, until enough photos have judged. Without such a fold there is one round in which none judges.
fn rounds(labels: &[usize], classes: usize, folds: &[u32], held_out: &[u32]) -> Vec<Vec<bool>> {
    let mut rounds: Vec<Vec<bool>> = Vec::new();
    let mut judges = 0;
    for &fold in held_out {
        let held: Vec<bool> = folds.iter().map(|&of| of == fold).collect();
        let mut learnt = vec![false; classes];
        labels.iter().zip(&held).filter(|(_, held)| !**held).for_each(|(&class, _)| learnt[class] = true);
        if learnt.contains(&false) {
            continue;
        }
        judges += held.iter().filter(|held| **held).count();
        rounds.push(held);
        if judges >= ENOUGH_TO_JUDGE || rounds.len() == MOST_ROUNDS {
            break;
        }
    }
    if rounds.is_empty() {
        rounds.push(vec![false; folds.len()]);
    }
    rounds
}

/// So many judging photos tell two networks apart that differ by a few points; more rounds would cost more time than
/// they are worth.
const ENOUGH_TO_JUDGE: usize = 160;
const MOST_ROUNDS: usize = 3;

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
    use std::path::PathBuf;

    use super::*;
    use crate::progress::Quiet;

    fn dataset(samples: Vec<Sample>) -> Dataset {
        let classes = ["a", "b"].map(String::from).to_vec();
        Dataset { root: PathBuf::from("photos"), classes, samples, notices: Vec::new() }
    }

    #[test]
    fn who_judges_does_not_teach_nor_does_its_group() {
        let sample = |i: usize| {
            let group = Some((i / 4).to_string());
            Sample { path: format!("{i}.png").into(), class: i / 4 % 2, part: Part::Train, group }
        };
        let data = dataset((0..80).map(sample).collect());
        let samples: Vec<&Sample> = data.samples.iter().collect();
        let places: Vec<usize> = (0..80).collect();
        let hashes = places.iter().map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect();
        let survey = Survey::new(&data, &samples, &places, hashes, &[], 0, &Quiet).unwrap();
        assert_eq!(survey.rounds(), MOST_ROUNDS);
        let mut judged = HashSet::new();
        for [judges, learners] in (0..survey.rounds()).map(|round| survey.round(round)) {
            assert!(!judges.is_empty() && !learners.is_empty());
            assert!(judges.iter().all(|photo| learners.iter().all(|other| photo / 4 != other / 4)));
            assert_eq!(judges.len() + learners.len(), 80);
            assert!(judges.into_iter().all(|photo| judged.insert(photo)), "judged twice");
        }
    }

    #[test]
    fn rounds_end_when_enough_photos_have_judged() {
        let of = |photos: usize| -> Vec<u32> { (0..photos as u32).map(|photo| photo / 2 % 5).collect() };
        let labels: Vec<usize> = (0..1000).map(|photo| photo % 2).collect();
        let all = [0, 1, 2, 3, 4];
        for (photos, expected) in [(1000, 1), (500, 2), (100, 3)] {
            let rounds = rounds(&labels[..photos], 2, &of(photos), &all);
            assert_eq!(rounds.len(), expected, "{photos} photos");
            assert!(rounds.iter().all(|judges| judges.iter().filter(|judge| **judge).count() == photos / 5));
        }
        // A part for validation is the one that judges.
        assert_eq!(rounds(&[0, 1, 0, 1], 2, &[0, 0, 1, 1], &[1]), [[false, false, true, true]]);
        // The first fold holds all photos of a class.
        assert_eq!(rounds(&[1, 0, 0, 0], 2, &[0, 1, 1, 2], &[0, 1, 2]).len(), 2);
        assert_eq!(rounds(&[0, 1], 2, &[0, 1], &[0, 1]), [[false, false]]);
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
            let (fold, held_out) =
                folds(&data, &kept, &split::groups(&kept, &hashes).ids, 0, &Quiet).unwrap();
            assert_eq!(held_out, if photos == 80 { vec![0, 1, 2, 3, 4] } else { vec![1] });
            assert!(fold.chunks(4).all(|group| group.iter().all(|f| *f == group[0])), "{photos} photos");
        }
    }
}
