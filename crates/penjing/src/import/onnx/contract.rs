//! What a file says beside its network: how photos become its input, what the classes are called.

use std::collections::BTreeMap;

use penjing_runtime::{
    file::Provenance,
    pixels::{Color, DecodeRule, Filter, Fit, Pixels},
};

use super::{super::What, OnnxDetails, draft::Affine};
use crate::onnx::Entry;

/// The metadata of a file.
#[derive(Default)]
pub(super) struct Metadata {
    pub(super) pixels: Option<Pixels>,
    pub(super) labels: Option<Vec<String>>,
    pub(super) temperature: Option<f32>,
    pub(super) arch: Option<String>,
    pub(super) source: Option<String>,
    pub(super) license: Option<String>,
}

/// What a file does to its input before any layer.
pub(super) struct Normalized {
    pub(super) by: Option<Affine>,
    /// Whether the input is bytes.
    pub(super) bytes: bool,
}

impl Metadata {
    /// Of the file's entries: penjing's own where penjing wrote it, class names from other tools too.
    pub(super) fn of(entries: &[Entry]) -> What<Self> {
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value[..]);
        let labels = entry("labels").or(entry("names")).and_then(names).map(distinct);
        if entry("penjing").is_none() {
            return Ok(Metadata { labels, ..Metadata::default() });
        }
        let bad =
            |key: &str| format!("its metadata entry `{key}` is not what penjing writes; export it again");
        let pixels = match entry("pixels") {
            None => None,
            Some(json) => Some(serde_json::from_str(json).map_err(|_| bad("pixels"))?),
        };
        let temperature = match entry("temperature") {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| bad("temperature"))?),
        };
        let provenance = match entry("provenance") {
            None => None,
            Some(json) => Some(serde_json::from_str::<Provenance>(json).map_err(|_| bad("provenance"))?),
        };
        Ok(Metadata {
            pixels,
            labels,
            temperature,
            arch: entry("arch").map(str::to_string),
            license: provenance.as_ref().map(|provenance| provenance.license.clone()),
            source: provenance.map(|provenance| provenance.backbone),
        })
    }
}

/// Class names as tools write them: a JSON list, or a JSON or Python dict from the class's number to its name. `None` for
/// anything else: such entries have no fixed meaning.
fn names(text: &str) -> Option<Vec<String>> {
    if let Ok(list) = serde_json::from_str::<Vec<String>>(text) {
        return Some(list);
    }
    let numbered = match serde_json::from_str::<BTreeMap<usize, String>>(text) {
        Ok(numbered) => numbered,
        Err(_) => python_dict(text)?,
    };
    let whole = numbered.keys().copied().eq(0..numbered.len());
    whole.then(|| numbered.into_values().collect())
}

/// `{0: 'tench', 1: "goldfish's friend"}` as Python writes it.
fn python_dict(text: &str) -> Option<BTreeMap<usize, String>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
    let mut named = BTreeMap::new();
    while !rest.is_empty() {
        let (number, after) = rest.split_once(':')?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut name = String::new();
        let mut chars = after[1..].char_indices();
        let end = loop {
            match chars.next()? {
                (at, c) if c == quote => break 1 + at + 1,
                (_, '\\') => name.push(chars.next()?.1),
                (_, c) => name.push(c),
            }
        };
        named.insert(number.trim().parse().ok()?, name);
        let after = after[end..].trim_start();
        rest = if after.is_empty() { after } else { after.strip_prefix(',')?.trim_start() };
    }
    Some(named)
}

/// Names told apart: ImageNet has two cranes, and both are classes.
fn distinct(mut labels: Vec<String>) -> Vec<String> {
    // Names that are taken, and the number that a further one tries first.
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for label in &mut labels {
        let name = label.clone();
        while taken.contains_key(label) {
            let number = taken.entry(name.clone()).or_insert(2);
            *label = format!("{name} ({number})");
            *number += 1;
        }
        taken.insert(label.clone(), 2);
    }
    labels
}

/// ImageNet's mean and deviation, in units of 0..=255.
const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const STD: [f32; 3] = [58.395, 57.12, 57.375];

/// How photos become the input `[height, width, channels]`.
///
/// A normalization inside the file is put after what its input is: bytes as they are; what the caller's mean and deviation
/// make of them; or, where neither is known, 0..=1 if its own numbers are that small, and 0..=255 if not.
pub(super) fn pixels(
    metadata: &Metadata,
    [height, width, channels]: [usize; 3],
    inside: Normalized,
    details: &OnnxDetails,
) -> What<Pixels> {
    let default = Pixels {
        height,
        width,
        color: if channels == 1 { Color::Gray } else { Color::Rgb },
        fit: Fit::Crop { short: height.min(width) * 8 / 7 },
        filter: Filter::Bilinear,
        mean: if channels == 1 { [MEAN.iter().sum::<f32>() / 3.0; 3] } else { MEAN },
        std: if channels == 1 { [STD.iter().sum::<f32>() / 3.0; 3] } else { STD },
        decode: DecodeRule::Full,
    };
    let mut pixels = match &metadata.pixels {
        None => default,
        Some(stated) => {
            // A crop's short side goes with the size.
            let fit = match stated.fit {
                Fit::Crop { .. } if [stated.height, stated.width] != [height, width] => default.fit,
                fit => fit,
            };
            Pixels { height, width, fit, ..stated.clone() }
        }
    };
    if pixels.channels() != channels {
        return Err(format!("its input has {channels} channels, and its pixels contract another number"));
    }
    let given = details.mean.is_some() || details.std.is_some();
    let Some(affine) = inside.by else {
        if inside.bytes && !given {
            (pixels.mean, pixels.std) = ([0.0; 3], [1.0; 3]);
        }
        pixels.mean = details.mean.unwrap_or(pixels.mean);
        pixels.std = details.std.unwrap_or(pixels.std);
        return Ok(pixels);
    };
    // x = scale · input + shift, and the input is (v − mean) / std.
    let [scale, shift] = affine.over(3);
    if scale.len() != 3 && scale.len() != channels {
        return Err("normalizes its input by another number of channels".into());
    }
    let at = |values: &[f64], channel: usize| values[channel.min(values.len() - 1)];
    let own =
        |channel: usize| (at(&shift, channel) / at(&scale, channel)).abs().max(1.0 / at(&scale, channel));
    let unit = (0..channels).map(own).fold(0.0, f64::max) <= 1.5;
    let (mean, std) = match (given, inside.bytes, unit) {
        (true, _, _) => (details.mean.unwrap_or([0.0; 3]), details.std.unwrap_or([1.0; 3])),
        (false, false, true) => ([0.0; 3], [255.0; 3]),
        (false, _, _) => ([0.0; 3], [1.0; 3]),
    };
    for channel in 0..3 {
        let (mean, std) = (f64::from(mean[channel]), f64::from(std[channel]));
        pixels.mean[channel] = (mean - at(&shift, channel) * std / at(&scale, channel)) as f32;
        pixels.std[channel] = (std / at(&scale, channel)) as f32;
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(all: &[(&str, &str)]) -> Vec<Entry> {
        all.iter().map(|(key, value)| Entry { key: key.to_string(), value: value.to_string() }).collect()
    }

    #[test]
    fn class_names_of_other_tools_are_read() {
        for (text, expected) in [
            (r#"["a", "b"]"#, Some(vec!["a", "b"])),
            (r#"{"1": "b", "0": "a"}"#, Some(vec!["a", "b"])),
            ("{0: 'tench', 1: \"monarch's\", 2: 'a, b: c'}", Some(vec!["tench", "monarch's", "a, b: c"])),
            (r"{0: 'it\'s'}", Some(vec!["it's"])),
            ("{0: 'crane', 1: 'crane', 2: 'crane (2)'}", Some(vec!["crane", "crane (2)", "crane (2) (2)"])),
            ("{0: 'a', 2: 'c'}", None),
            ("{0: 'a'", None),
            ("{0: a}", None),
            ("{0: 'a}", None),
            ("a, b", None),
        ] {
            let labels = Metadata::of(&entries(&[("names", text)])).unwrap().labels;
            assert_eq!(labels, expected.map(|all| all.iter().map(|s| s.to_string()).collect()), "{text}");
        }
    }

    #[test]
    fn a_contract_counts_only_where_penjing_wrote_it() {
        let foreign = Metadata::of(&entries(&[("pixels", "whatever")])).unwrap();
        assert_eq!(foreign.pixels, None);
        let error = Metadata::of(&entries(&[("penjing", "0.1.0"), ("pixels", "whatever")])).err();
        assert!(error.unwrap().contains("`pixels`"));
    }

    fn contract(by: Option<(f64, f64)>, bytes: bool, details: &OnnxDetails) -> ([f32; 3], [f32; 3]) {
        let by = by.map(|(scale, shift)| Affine { scale: vec![scale], shift: vec![shift] });
        let pixels = pixels(&Metadata::default(), [32, 32, 3], Normalized { by, bytes }, details).unwrap();
        (pixels.mean, pixels.std)
    }

    #[test]
    fn a_normalization_inside_becomes_part_of_the_contract() {
        let none = OnnxDetails::default();
        let given = OnnxDetails { mean: Some([10.0; 3]), std: Some([2.0; 3]), ..none.clone() };
        assert_eq!(contract(None, false, &none), (MEAN, STD));
        assert_eq!(contract(None, false, &given), ([10.0; 3], [2.0; 3]));
        assert_eq!(contract(None, true, &none), ([0.0; 3], [1.0; 3]));
        // (x − 0.5) / 0.25 of 0..=1, and (x − 128) / 64 of 0..=255.
        assert_eq!(contract(Some((4.0, -2.0)), false, &none), ([127.5; 3], [63.75; 3]));
        assert_eq!(contract(Some((1.0 / 64.0, -2.0)), false, &none), ([128.0; 3], [64.0; 3]));
        // (x − 0.5) / 0.25 of bytes is odd, but it is what the file says.
        assert_eq!(contract(Some((4.0, -2.0)), true, &none), ([0.5; 3], [0.25; 3]));
        // After the caller's (v − 10) / 2: 4 ((v − 10) / 2) − 2 = (v − 11) / 0.5.
        assert_eq!(contract(Some((4.0, -2.0)), false, &given), ([11.0; 3], [0.5; 3]));
    }
}
