//! What can be pulled: one row for each set of weights.

use penjing_runtime::pixels::{Filter, Fit, Pixels};

use crate::{
    Error, Result,
    zoo::forms::{self, Look},
};

/// Published weights: where they lie, and what their file does not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    /// What the user asks for: a network's name, with the suffix of its width (see
    /// [`Arch::named`](crate::zoo::Arch::named)).
    pub name: &'static str,
    /// The hub's repository, `owner/name`.
    pub repository: &'static str,
    /// Branch, tag or commit. A branch moves: the commit it names at the first pull is recorded, and asked for afterwards.
    pub revision: &'static str,
    /// The weights in the repository.
    pub file: &'static str,
    /// SHA-256 of the file in hexadecimal, where somebody has verified it; `None` leaves it to the first pull.
    pub sha256: Option<&'static str>,
    /// Whose form of the network it is ([`Form::of`](crate::zoo::Form::of)): how convolutions pad, epsilon, keys.
    pub form: &'static str,
    /// Licence (SPDX), as timm states it in its `PretrainedCfg`.
    pub license: &'static str,
    /// Input size in pixels.
    pub size: usize,
    /// The short side of a photo before its centre is cut out: ⌊size / timm's `crop_pct`⌋.
    pub short: usize,
    /// What these weights were shown, which may differ from what others of the form were.
    pub look: Look,
    /// Accuracy on ImageNet's validation photos, in percent, at this size and crop: timm's `results-imagenet.csv`.
    pub top1: f64,
}

/// Every set of weights that can be pulled.
pub const SOURCES: &[Source] = &[
    timm("efficientnet_lite0", "timm/tf_efficientnet_lite0.in1k", 224, 256, 74.846).tf(),
    timm("efficientnet_lite1", "timm/tf_efficientnet_lite1.in1k", 240, 272, 76.674).tf(),
    timm("efficientnet_lite2", "timm/tf_efficientnet_lite2.in1k", 260, 292, 77.470).tf(),
    timm("efficientnet_lite3", "timm/tf_efficientnet_lite3.in1k", 300, 331, 79.808).tf().bilinear(),
    timm("efficientnet_lite4", "timm/tf_efficientnet_lite4.in1k", 380, 413, 81.540).tf().bilinear(),
    timm("mnasnet", "timm/mnasnet_100.rmsp_in1k", 224, 256, 74.672),
    timm("mobilenet_v1", "timm/mobilenetv1_100.ra4_e3600_r224_in1k", 224, 256, 75.388).inception(),
    timm("mobilenet_v2", "timm/mobilenetv2_100.ra_in1k", 224, 256, 72.910),
    timm("mobilenet_v2_x0.5", "timm/mobilenetv2_050.lamb_in1k", 224, 256, 65.928),
    timm("mobilenet_v2_x1.4", "timm/mobilenetv2_140.ra_in1k", 224, 256, 76.528),
    timm("mobilenet_v3_large", "timm/mobilenetv3_large_100.ra_in1k", 224, 256, 75.784),
    timm("mobilenet_v3_large_minimal", "timm/tf_mobilenetv3_large_minimal_100.in1k", 224, 256, 72.270)
        .tf()
        .bilinear(),
    timm("mobilenet_v3_small", "timm/mobilenetv3_small_100.lamb_in1k", 224, 256, 67.636),
    timm("mobilenet_v3_small_x0.5", "timm/mobilenetv3_small_050.lamb_in1k", 224, 256, 57.918),
    timm("mobilenet_v3_small_x0.75", "timm/mobilenetv3_small_075.lamb_in1k", 224, 256, 65.284),
    timm("mobilenet_v3_small_minimal", "timm/tf_mobilenetv3_small_minimal_100.in1k", 224, 256, 62.892)
        .tf()
        .bilinear(),
    timm("mobilenet_v4_conv_medium", "timm/mobilenetv4_conv_medium.e500_r256_in1k", 256, 269, 79.916),
    timm("mobilenet_v4_conv_small", "timm/mobilenetv4_conv_small.e2400_r224_in1k", 224, 256, 73.756),
    timm("resnet18", "timm/resnet18.a1_in1k", 224, 235, 71.504),
    timm("resnet34", "timm/resnet34.a1_in1k", 224, 235, 76.420),
    timm("resnet50", "timm/resnet50.a1_in1k", 224, 235, 80.382),
];

/// A row as most are: Apache-2.0, bicubic, ImageNet's normalization, no hash that anybody has verified.
const fn timm(name: &'static str, repository: &'static str, size: usize, short: usize, top1: f64) -> Source {
    Source {
        name,
        repository,
        revision: "main",
        file: "model.safetensors",
        sha256: None,
        form: "timm",
        license: "Apache-2.0",
        size,
        short,
        look: forms::imagenet(Filter::Bicubic),
        top1,
    }
}

impl Source {
    const fn inception(self) -> Source {
        Source { look: forms::inception(self.look.filter), ..self }
    }

    /// The authors' weights of TensorFlow.
    const fn tf(self) -> Source {
        Source { form: "tf", ..self.inception() }
    }

    const fn bilinear(self) -> Source {
        Source { look: Look { filter: Filter::Bilinear, ..self.look }, ..self }
    }

    /// The row of this name.
    ///
    /// # Errors
    /// [`Error::Unsupported`] listing the names there are.
    pub fn named(name: &str) -> Result<&'static Source> {
        SOURCES.iter().find(|source| source.name == name).ok_or_else(|| {
            let names: Vec<&str> = SOURCES.iter().map(|source| source.name).collect();
            Error::Unsupported(format!(
                "no weights to pull are called `{name}`; there are: {}",
                names.join(", ")
            ))
        })
    }

    /// The pixels that these weights were trained on, where `pixels` are those of the network's table.
    pub fn pixels(&self, pixels: Pixels) -> Pixels {
        let Look { filter, mean, std } = self.look;
        Pixels { fit: Fit::Crop { short: self.short }, filter, mean, std, ..pixels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::{Arch, Config, blocks::Padding};

    #[test]
    fn rows_are_what_timm_says_of_its_weights() {
        // `scripts/goldens/hub_sources.py`
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/hub/timm.json");
        let text = std::fs::read_to_string(golden).unwrap();
        let golden: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(golden.len(), SOURCES.len() + 1, "a version, and an entry a row");
        for source in SOURCES {
            let theirs = &golden[source.repository];
            let float = |key: &str| theirs[key].as_f64().unwrap();
            let floats = |key: &str| -> Vec<f64> {
                theirs[key].as_array().unwrap().iter().map(|x| 255.0 * x.as_f64().unwrap()).collect()
            };
            let name = source.name;
            assert_eq!(theirs["license"], source.license.to_lowercase(), "{name}");
            assert_eq!(theirs["size"], source.size, "{name}");
            assert_eq!((source.size as f64 / float("crop_pct")).floor(), source.short as f64, "{name}");
            assert_eq!(theirs["interpolation"], format!("{:?}", source.look.filter).to_lowercase(), "{name}");
            assert_eq!(float("top1"), source.top1, "{name}");
            let (arch, width) = Arch::named(name).unwrap();
            assert_eq!(arch.name_at(width), name);
            let form = arch.forms.iter().find(|form| form.of == source.form).expect(name);
            assert_eq!(float("bn_eps") as f32, form.bn_eps, "{name}");
            assert_eq!(theirs["same_padding"], matches!(form.padding, Padding::Same), "{name}");
            let config = Config { width, size: source.size, form, ..arch.config(1000) };
            let graph = arch.graph(&config).unwrap_or_else(|error| panic!("{name}: {error}"));
            let values: usize =
                graph.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!(theirs["values"], values, "{name}");
            let pixels = source.pixels(arch.pixels(&config));
            for (ours, theirs) in [(pixels.mean, floats("mean")), (pixels.std, floats("std"))] {
                assert!(ours.iter().zip(theirs).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-3), "{name}");
            }
        }
    }

    #[test]
    fn the_guide_lists_every_row() {
        let guide =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/weights.md")).unwrap();
        for Source { name, repository, size, top1, license, .. } in SOURCES {
            let row = format!("| `{name}` | `{repository}` | {size} | {top1:.2} |");
            assert!(guide.contains(&row), "docs/weights.md lacks {row}");
            assert_eq!(*license, "Apache-2.0", "docs/weights.md says that all are");
        }
    }

    #[test]
    fn names_are_unique_and_can_be_folders_and_paths_of_an_address() {
        for (at, source) in SOURCES.iter().enumerate() {
            assert!(SOURCES[..at].iter().all(|other| other.name != source.name), "{}", source.name);
            for part in [source.name, source.repository, source.revision, source.file] {
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
                assert!(part.chars().all(plain) && !part.contains(".."), "{part}");
            }
            assert!(!source.name.contains('/') && source.repository.matches('/').count() == 1);
            assert!(source.sha256.is_none_or(super::super::digest::is_one), "{}", source.name);
        }
        assert!(Source::named("nonsense").unwrap_err().to_string().contains("mobilenet_v2_x0.5"));
    }
}
