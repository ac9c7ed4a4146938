//! Photos blended into each other.

use serde::{Deserialize, Serialize};

use crate::random::SplitMix64;

/// Alphas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// mixup
    pub mixup: f64,
    /// cutmix
    pub cutmix: f64,
}

impl Mix {
    /// Blends.
    pub fn apply(
        &self,
        _random: &mut SplitMix64,
        _shape: [usize; 4],
        _inputs: &mut [f32],
        _targets: &mut [f32],
        _classes: usize,
    ) {
    }
}
