//! Batches of photos: which ones an epoch shows, in which order, and how they become the network's input.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use penjing_runtime::pixels::{Pixels, View};
use rayon::prelude::*;

use super::{
    augment::{Augment, random},
    teacher::Teacher,
};
use crate::{
    Error, Result,
    data::decode::{self, Limits},
    progress::Progress,
    random::SplitMix64,
    threads::Threads,
};

/// A photo to learn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Photo {
    /// The file.
    pub path: PathBuf,
    /// Place of its class; `None` for a photo without a label, of which only a teacher can tell anything.
    pub class: Option<u32>,
    /// What its looks are drawn from; a photo of the same key looks the same wherever it stands in the list.
    pub key: u64,
}

/// One look at a photo.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Place of the photo.
    pub photo: u32,
    /// How often the photo was drawn before in the same epoch: each time gives another look.
    pub time: u32,
}

/// Reads photos and decodes them for `pixels`: the BLAKE3 of each, or why it cannot be used.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn read(
    paths: &[impl AsRef<Path> + Sync],
    pixels: &Pixels,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Vec<Result<[u8; 32]>>> {
    progress.begin("reading", paths.len());
    let look = |path: &Path| {
        let limits = Limits::default();
        let bytes = decode::read_bytes(path, &limits)?;
        decode::decode_for(&bytes, &limits, pixels).map_err(|error| Error::data(path, error.to_string()))?;
        Ok(*blake3::hash(&bytes).as_bytes())
    };
    let read = paths.par_iter().map(|path| {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        let photo = look(path.as_ref());
        progress.advance(1);
        Ok(photo)
    });
    let read = threads.install(|| read.collect());
    progress.end();
    read
}

/// What a photo's looks are drawn from, given the BLAKE3 of its file.
pub fn key(hash: &[u8; 32]) -> u64 {
    u64::from_le_bytes(*hash.first_chunk().unwrap_or(&[0; 8]))
}

/// A source of batches. What it gives depends on its photos, contract, augmentation and seed, and neither on the
/// number of threads nor on the memory it may take.
#[derive(Debug)]
pub struct Feed {
    photos: Vec<Photo>,
    /// The photos of each class, shuffled; empty when every photo is drawn once.
    decks: Vec<Vec<u32>>,
    balance: f64,
    /// Decoded photos that are kept.
    kept: Vec<OnceLock<Arc<decode::Photo>>>,
    /// Bytes that may still be kept.
    left: AtomicUsize,
    pixels: Pixels,
    augment: Augment,
    seed: u64,
}

/// Sets the order apart from the looks, which are drawn from the same seed.
const ORDER: u64 = 0x6f72_6465;

impl Feed {
    /// A feed of `photos` in `classes` classes as inputs of `pixels`.
    ///
    /// `balance` 0 shows every photo equally often, 1 every class, and b between them a class of n photos in proportion
    /// to n^(1 − b); photos without a label count as one class more. Decoded photos are kept until they take `memory` bytes; the others are read anew each time.
    ///
    /// # Panics
    /// If `balance` is not 0 and a photo's class is not below `classes`.
    pub fn new(
        photos: Vec<Photo>,
        classes: usize,
        pixels: Pixels,
        augment: Augment,
        balance: f64,
        seed: u64,
        memory: usize,
    ) -> Feed {
        let mut decks = Vec::new();
        if balance != 0.0 {
            decks.resize(classes + 1, Vec::new());
            for (place, photo) in (0..).zip(&photos) {
                decks[photo.class.map_or(classes, |class| class as usize)].push(place);
            }
            let mut random = SplitMix64::new(SplitMix64::new(seed ^ ORDER).next_u64());
            decks.iter_mut().for_each(|deck| random.shuffle(deck));
        }
        let kept = photos.iter().map(|_| OnceLock::new()).collect();
        Feed { photos, decks, balance, kept, left: AtomicUsize::new(memory), pixels, augment, seed }
    }

    /// The contract that the inputs follow.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The draws of an epoch, as many as there are photos, shuffled.
    ///
    /// With balance, what a class gets differs from its share by less than one, and is right on average. Its photos take
    /// turns, from one epoch to the next too.
    pub fn order(&self, epoch: u64) -> Vec<Draw> {
        let mut random = SplitMix64::new(SplitMix64::new(self.seed ^ ORDER).next_u64() ^ epoch);
        let mut draws = match self.balance {
            0.0 => (0..self.photos.len() as u32).map(|photo| Draw { photo, time: 0 }).collect(),
            _ => self.balanced(epoch, &mut random),
        };
        random.shuffle(&mut draws);
        draws
    }

    fn balanced(&self, epoch: u64, random: &mut SplitMix64) -> Vec<Draw> {
        // A class without photos has no share, though 0⁰ is 1.
        let weight = |deck: &Vec<u32>| match deck.len() {
            0 => 0.0,
            n => (n as f64).powf(1.0 - self.balance),
        };
        let total: f64 = self.decks.iter().map(weight).sum();
        let photos = self.photos.len();
        let mut draws = Vec::with_capacity(photos);
        // Shares lie end to end on a line; a class gets the whole numbers within its own, after a random shift of all.
        let (mut end, shift) = (0.0, random.uniform());
        let last = self.decks.iter().rposition(|deck| !deck.is_empty());
        for (class, deck) in self.decks.iter().enumerate().filter(|(_, deck)| !deck.is_empty()) {
            let share = photos as f64 * weight(deck) / total;
            end += share;
            // Rounding must not cost the last class a draw.
            let end = if Some(class) == last { photos } else { (end + shift) as usize };
            let (count, n) = (end.saturating_sub(draws.len()), deck.len());
            let start = (epoch as f64 * share) as usize;
            draws.extend((0..count).map(|i| Draw { photo: deck[(start + i) % n], time: (i / n) as u32 }));
        }
        draws
    }

    /// Writes the inputs `[draws, height, width, channels]` of `draws`, each as its look in `epoch`; `pixels` are the
    /// feed's, or those of another size. A teacher sees the same looks under a contract of
    /// its own; its answers are `[draws, width]`.
    ///
    /// # Errors
    /// That of the first photo, in the order of `draws`, that cannot be read; it names the file.
    ///
    /// # Panics
    /// If `inputs` does not hold as many inputs as there are draws, or the answers not as many answers.
    pub fn fill(
        &self,
        pixels: &Pixels,
        epoch: u64,
        draws: &[Draw],
        inputs: &mut [f32],
        teacher: Option<(&Teacher, &mut [f32])>,
    ) -> Result<()> {
        assert_eq!(inputs.len(), draws.len() * pixels.len(), "one input for each draw");
        let look = |pixels: &Pixels, draw: &Draw, scratch: &mut Vec<u8>, out: &mut [f32]| {
            let photo = self.photo(draw.photo as usize)?;
            let key = self.photos[draw.photo as usize].key;
            let first = random(self.seed, epoch, key).next_u64();
            // What is drawn does not depend on the contract, so that every contract shows the same look.
            let mut random = SplitMix64::new(first ^ u64::from(draw.time));
            self.augment.look(pixels, photo.view(), &mut random, scratch, out);
            Ok(())
        };
        let looks = inputs.par_chunks_mut(pixels.len()).zip(draws);
        let results: Vec<Result<()>> = match teacher {
            None => {
                looks.map_init(Vec::new, |scratch, (out, draw)| look(pixels, draw, scratch, out)).collect()
            }
            Some((teacher, answers)) => {
                assert_eq!(answers.len(), draws.len() * teacher.width(), "one answer for each draw");
                let seen = || (Vec::new(), vec![0.0; teacher.pixels().len()]);
                looks
                    .zip(answers.par_chunks_mut(teacher.width()))
                    .map_init(seen, |(scratch, seen), ((out, draw), answer)| {
                        look(pixels, draw, scratch, out)?;
                        if teacher.pixels() == pixels {
                            teacher.answer(out, answer);
                            return Ok(());
                        }
                        look(teacher.pixels(), draw, scratch, seen)?;
                        teacher.answer(seen, answer);
                        Ok(())
                    })
                    .collect()
            }
        };
        results.into_iter().collect()
    }

    /// Writes the input of a photo as the contract says, without augmentation.
    ///
    /// # Errors
    /// The photo cannot be read; the error names the file.
    ///
    /// # Panics
    /// If `out` is not as long as an input.
    pub fn plain(&self, photo: usize, out: &mut [f32]) -> Result<()> {
        let photo = self.photo(photo)?;
        self.pixels.tensor(photo.view(), View::PLAIN, out);
        Ok(())
    }

    /// The decoded photo, from memory if it was kept.
    fn photo(&self, place: usize) -> Result<Arc<decode::Photo>> {
        if let Some(photo) = self.kept[place].get() {
            return Ok(photo.clone());
        }
        let photo = Arc::new(decode::read_for(&self.photos[place].path, &Limits::default(), &self.pixels)?);
        let bytes = photo.data.len();
        let less = |left: usize| left.checked_sub(bytes);
        let fits = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        if fits && self.kept[place].set(photo.clone()).is_err() {
            // Another thread has kept the same photo meanwhile.
            self.left.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(photo)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path};

    use penjing_runtime::pixels::{Color, DecodeRule, Filter, Fit};

    use super::*;
    use crate::threads::Threads;

    const PHOTOS: [&str; 5] =
        ["lossy.webp", "palette.png", "progressive_420.jpg", "still.gif", "palette.bmp"];

    fn pixels() -> Pixels {
        Pixels {
            height: 20,
            width: 24,
            color: Color::Rgb,
            fit: Fit::Squash,
            filter: Filter::Bilinear,
            mean: [100.0, 110.0, 120.0],
            std: [60.0; 3],
            decode: DecodeRule::Full,
        }
    }

    /// So many photos of each class, the files taken in turn.
    fn feed(counts: &[usize], balance: f64, seed: u64, memory: usize) -> Feed {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos");
        let classes = counts.iter().enumerate().flat_map(|(c, &n)| std::iter::repeat_n(c as u32, n));
        let photos = classes.enumerate().map(|(i, class)| Photo {
            path: folder.join(PHOTOS[i % PHOTOS.len()]),
            class: Some(class),
            key: i as u64,
        });
        let augment = Augment::recommended(10.0);
        Feed::new(photos.collect(), counts.len(), pixels(), augment, balance, seed, memory)
    }

    #[test]
    fn photos_are_decoded_as_the_contract_says() {
        let reduced = Pixels { height: 9, width: 11, decode: DecodeRule::Dct { margin: 1 }, ..pixels() };
        let full = Pixels { decode: DecodeRule::Full, ..reduced.clone() };
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos/progressive_420.jpg");
        let [at_quarter, whole] = [&reduced, &full].map(|pixels| {
            let photo = Photo { path: path.clone(), class: Some(0), key: 0 };
            let feed = Feed::new(vec![photo], 1, pixels.clone(), Augment::NONE, 0.0, 0, 1 << 20);
            let mut plain = vec![0.0; pixels.len()];
            feed.plain(0, &mut plain).unwrap();
            // Whatever size it is seen at while training, its photo stays that of the contract.
            let larger = Pixels { height: 37, width: 47, ..pixels.clone() };
            let mut grown = vec![0.0; larger.len()];
            feed.fill(&larger, 0, &feed.order(0), &mut grown, None).unwrap();
            let mut expected = vec![0.0; larger.len()];
            let photo = decode::read_for(&path, &Limits::default(), pixels).unwrap();
            larger.tensor(photo.view(), View::PLAIN, &mut expected);
            assert_eq!(grown, expected);
            (plain, [photo.width, photo.height])
        });
        assert_eq!((at_quarter.1, whole.1), ([12, 10], [47, 37]));
        assert_ne!(at_quarter.0, whole.0);
    }

    #[test]
    fn without_balance_an_epoch_shows_every_photo_once() {
        let feed = feed(&[30, 0, 5], 0.0, 1, 0);
        for epoch in 0..3 {
            let mut places: Vec<u32> = feed.order(epoch).iter().map(|draw| draw.photo).collect();
            assert!(!places.is_sorted());
            places.sort_unstable();
            assert_eq!(places, (0..35).collect::<Vec<_>>());
            assert!(feed.order(epoch).iter().all(|draw| draw.time == 0));
            assert_ne!(feed.order(epoch), feed.order(epoch + 1));
        }
    }

    #[test]
    fn with_balance_classes_get_their_shares_and_photos_take_turns() {
        // 160 draws in proportion to √n, and alike; the empty class gets none.
        let counts = [100, 0, 4, 56];
        let root = 10.0 + 2.0 + 56f64.sqrt();
        let shares = [
            (0.5, [1600.0 / root, 0.0, 320.0 / root, 160.0 * 56f64.sqrt() / root]),
            (1.0, [160.0 / 3.0, 0.0, 160.0 / 3.0, 160.0 / 3.0]),
        ];
        for (balance, shares) in shares {
            let feed = feed(&counts, balance, 3, 0);
            let mut drawn = vec![0; 160];
            let epochs = 60;
            for epoch in 0..epochs {
                let order = feed.order(epoch);
                assert_eq!(order.len(), 160);
                let mut got = [0; 4];
                let mut seen = HashSet::new();
                let mut times = vec![0; 160];
                for draw in &order {
                    got[feed.photos[draw.photo as usize].class.unwrap() as usize] += 1;
                    drawn[draw.photo as usize] += 1;
                    times[draw.photo as usize] += 1;
                    assert!(seen.insert((draw.photo, draw.time)), "the same look twice");
                }
                for (got, share) in got.into_iter().zip(shares) {
                    assert!((f64::from(got) - share).abs() < 1.0, "{got} of {share}");
                }
                for draw in order {
                    assert!(draw.time < times[draw.photo as usize]);
                }
            }
            let mut first = 0;
            for (&count, share) in counts.iter().zip(shares).filter(|(count, _)| **count > 0) {
                let class = &drawn[first..first + count];
                let each = share * epochs as f64 / count as f64;
                let most = class.iter().max().unwrap() - class.iter().min().unwrap();
                // A draw more or less in an epoch shifts the turns by one.
                assert!(most <= 4 + (each * 0.1) as i32, "{most} of {each}");
                let sum = f64::from(class.iter().sum::<i32>());
                assert!((sum / (share * epochs as f64) - 1.0).abs() < 0.01, "{sum}");
                first += count;
            }
        }
    }

    #[test]
    fn batches_depend_neither_on_threads_nor_on_memory() {
        let batch = |threads, memory, seed, epoch| {
            let feed = feed(&[9, 3], 0.5, seed, memory);
            let order = feed.order(epoch);
            let mut inputs = vec![0.0; order.len() * feed.pixels.len()];
            Threads::new(Some(threads)).unwrap().install(|| {
                feed.fill(feed.pixels(), epoch, &order, &mut inputs, None).unwrap();
                // Again, from memory where there is some.
                feed.fill(feed.pixels(), epoch, &order, &mut inputs, None).unwrap();
            });
            let kept = feed.kept.iter().filter(|slot| slot.get().is_some()).count();
            (order, inputs, kept)
        };
        let (order, inputs, kept) = batch(1, 0, 7, 2);
        assert_eq!(kept, 0);
        let mut most = 0;
        for (threads, memory) in [(2, 0), (1, 100_000), (2, usize::MAX)] {
            let other = batch(threads, memory, 7, 2);
            assert_eq!((&order, &inputs), (&other.0, &other.1), "{threads} threads, {memory} bytes");
            assert!(other.2 >= most);
            most = other.2;
        }
        let drawn: HashSet<u32> = order.iter().map(|draw| draw.photo).collect();
        assert_eq!(most, drawn.len());
        for (seed, epoch) in [(8, 2), (7, 3)] {
            let other = batch(1, 0, seed, epoch);
            assert_ne!(order, other.0);
            assert_ne!(inputs, other.1);
        }
    }

    #[test]
    fn every_draw_is_another_look() {
        let feed = feed(&[2], 0.0, 7, usize::MAX);
        let look = |epoch, photo, time| {
            let mut input = vec![0.0; feed.pixels.len()];
            feed.fill(feed.pixels(), epoch, &[Draw { photo, time }], &mut input, None).unwrap();
            input
        };
        assert_eq!(look(0, 0, 0), look(0, 0, 0));
        assert_ne!(look(0, 0, 0), look(0, 0, 1));
        assert_ne!(look(0, 0, 0), look(1, 0, 0));
    }

    #[test]
    fn an_unreadable_photo_is_named() {
        let mut feed = feed(&[6], 0.0, 7, usize::MAX);
        feed.photos[3].path = "no/such/photo.jpg".into();
        feed.photos[4].path = "nor/this.jpg".into();
        let draws: Vec<Draw> = (0..6).map(|photo| Draw { photo, time: 0 }).collect();
        let mut inputs = vec![0.0; 6 * feed.pixels.len()];
        let error = feed.fill(feed.pixels(), 0, &draws, &mut inputs, None).unwrap_err().to_string();
        assert!(error.contains("no/such/photo.jpg"), "{error}");
        let error = feed.plain(4, &mut inputs[..feed.pixels.len()]).unwrap_err().to_string();
        assert!(error.contains("nor/this.jpg"), "{error}");
    }
}
