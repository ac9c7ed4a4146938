//! The forms in which networks are published: what else differs between weights of one architecture.

use penjing_runtime::pixels::Filter;

use super::blocks::Padding;

/// From the name of a graph's parameter to its key in a state dict.
pub type Key = fn(&str) -> Option<String>;

/// One way in which an architecture was trained and its weights written down.
///
/// Padding and epsilon belong to the weights: with another form's they compute something else.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Whose it is: `torchvision`, `timm`, `tf` (the authors' TensorFlow weights as timm holds them).
    pub of: &'static str,
    /// How convolutions pad.
    pub padding: Padding,
    /// Epsilon of every BatchNorm.
    pub bn_eps: f32,
    /// What the weights were shown.
    pub look: Look,
    pub(super) key: Key,
}

/// How photos become values: `(x − mean) / std` in units of 0..=255, after resizing by `filter`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// How photos are resized.
    pub filter: Filter,
    /// Subtracted from red, green and blue.
    pub mean: [f32; 3],
    /// Divides what is left.
    pub std: [f32; 3],
}

impl Form {
    /// Key of one of the graph's parameters in weights of this form.
    pub fn key(&self, parameter: &str) -> Option<String> {
        (self.key)(parameter)
    }
}

/// Mean and deviation of ImageNet's photos.
pub const fn imagenet(filter: Filter) -> Look {
    Look {
        filter,
        mean: [0.485 * 255.0, 0.456 * 255.0, 0.406 * 255.0],
        std: [0.229 * 255.0, 0.224 * 255.0, 0.225 * 255.0],
    }
}

/// −1..1.
pub const fn inception(filter: Filter) -> Look {
    Look { filter, mean: [127.5; 3], std: [127.5; 3] }
}

/// What torchvision's networks have in common.
pub(super) const fn torchvision(key: Key) -> Form {
    let look = imagenet(Filter::Bilinear);
    Form { of: "torchvision", padding: Padding::Symmetric, bn_eps: 1e-5, look, key }
}

/// What timm's own trainings have in common; some of its weights were shown −1..1 instead.
pub(super) const fn timm(key: Key) -> Form {
    let look = imagenet(Filter::Bicubic);
    Form { of: "timm", padding: Padding::Symmetric, bn_eps: 1e-5, look, key }
}
