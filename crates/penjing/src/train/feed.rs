//! Batches of photos.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use penjing_runtime::pixels::{Pixels, View};
use rayon::prelude::*;

use super::augment::{Augment, random};
use crate::{
    Result,
    data::decode::{self, Limits},
    random::SplitMix64,
};

/// A photo.
#[derive(Clone, Debug, PartialEq)]
pub struct Photo {
    /// p
    pub path: PathBuf,
    /// c
    pub class: u32,
    /// k
    pub key: u64,
}
/// A draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// p
    pub photo: u32,
    /// t
    pub time: u32,
}
/// A feed.
#[derive(Debug)]
pub struct Feed {
    photos: Vec<Photo>,
    slots: Vec<OnceLock<Arc<decode::Photo>>>,
    left: AtomicUsize,
    pixels: Pixels,
    augment: Augment,
    seed: u64,
}
impl Feed {
    /// new
    pub fn new(
        photos: Vec<Photo>,
        _classes: usize,
        pixels: Pixels,
        augment: Augment,
        _balance: f64,
        seed: u64,
        memory: usize,
    ) -> Feed {
        Feed {
            slots: photos.iter().map(|_| OnceLock::new()).collect(),
            photos,
            left: AtomicUsize::new(memory),
            pixels,
            augment,
            seed,
        }
    }
    /// pixels
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }
    /// order
    pub fn order(&self, epoch: u64) -> Vec<Draw> {
        let mut all: Vec<Draw> = (0..self.photos.len() as u32).map(|photo| Draw { photo, time: 0 }).collect();
        let mut random = SplitMix64::new(SplitMix64::new(self.seed ^ 0x6f72_6465).next_u64() ^ epoch);
        for i in (1..all.len()).rev() {
            all.swap(i, random.below(i + 1));
        }
        all
    }
    fn photo(&self, index: usize) -> Result<Arc<decode::Photo>> {
        if let Some(photo) = self.slots[index].get() {
            return Ok(photo.clone());
        }
        let photo = Arc::new(decode::read(&self.photos[index].path, &Limits::default())?);
        let len = photo.data.len();
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(len)).is_ok()
        {
            let _ = self.slots[index].set(photo.clone());
        }
        Ok(photo)
    }
    /// fill
    pub fn fill(&self, epoch: u64, draws: &[Draw], inputs: &mut [f32]) -> Result<()> {
        inputs.par_chunks_mut(self.pixels.len()).zip(draws).try_for_each_init(
            Vec::new,
            |scratch, (out, draw)| {
                let photo = self.photo(draw.photo as usize)?;
                let mut random =
                    random(self.seed, epoch, self.photos[draw.photo as usize].key ^ u64::from(draw.time));
                self.augment.look(&self.pixels, photo.view(), &mut random, scratch, out);
                Ok(())
            },
        )
    }
    /// plain
    pub fn plain(&self, photo: usize, out: &mut [f32]) -> Result<()> {
        let photo = self.photo(photo)?;
        self.pixels.tensor(photo.view(), View::PLAIN, out);
        Ok(())
    }
}
