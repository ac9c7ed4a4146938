//! A backbone made to see photos in another way: another size, gray, another fit.

use penjing_runtime::{
    file::Model,
    op::Op,
    pixels::{Color, DecodeRule, Fit, Pixels},
    tensor::Tensor,
};

use crate::{
    Error, Result,
    zoo::{Arch, Config},
};

/// How photos become the input; what is `None` or `false` stays as the backbone has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// Height and width in pixels.
    pub size: Option<usize>,
    /// One gray channel instead of RGB.
    pub gray: bool,
    /// What happens to photos that are not square.
    pub fit: Option<FitKind>,
    /// How files are decoded.
    pub decode: Option<DecodeRule>,
}

/// What happens to photos that are not square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FitKind {
    /// The centre is cut out.
    Crop,
    /// The whole photo, the rest filled with the mean colour.
    Pad,
    /// The whole photo, stretched.
    Squash,
}

/// The backbone for another input.
///
/// A gray input sums the first convolution's weights over the channels, each divided by its own deviation and shifted
/// by its own mean, so that gray photos give the features that they gave as RGB (but for the shift at the border where
/// the channels' means differ).
///
/// # Errors
/// [`Error::Unsupported`] for a size that the network cannot have, or a gray input where its beginning is not known.
pub fn adapt(backbone: &Model, input: &Input) -> Result<Model> {
    let mut model = backbone.clone();
    if let Some(size) = input.size.filter(|&size| [size; 2] != [model.pixels.height, model.pixels.width]) {
        resize(&mut model, size)?;
    }
    if input.gray && model.pixels.color == Color::Rgb {
        to_gray(&mut model)?;
    }
    let Pixels { height, width, mean, .. } = model.pixels;
    match input.fit {
        None => {}
        Some(FitKind::Crop) => model.pixels.fit = Fit::Crop { short: height.min(width) * 8 / 7 },
        Some(FitKind::Pad) => model.pixels.fit = Fit::Pad { fill: mean.map(|value| value.round() as u8) },
        Some(FitKind::Squash) => model.pixels.fit = Fit::Squash,
    }
    model.pixels.decode = input.decode.unwrap_or(model.pixels.decode);
    model.check().map_err(|error| Error::Unsupported(format!("{}: {error}", model.arch)))?;
    Ok(model)
}

fn resize(model: &mut Model, size: usize) -> Result<()> {
    let Pixels { height, width, fit, .. } = model.pixels;
    // A network that the zoo does not know is its graph alone, with the padding that it has.
    let Ok((arch, multiplier)) = Arch::named(&model.arch) else {
        let channels = model.pixels.channels();
        let fault = |error: penjing_runtime::Error| {
            Error::Unsupported(format!(
                "{}: the network cannot have inputs of {size} pixels ({error}); leave it at {height} × {width}, or export it \
                 from its framework for {size} and import that",
                model.arch
            ))
        };
        let graph = model.graph.with_input([1, size, size, channels]).map_err(fault)?;
        graph.check(&model.weights).map_err(fault)?;
        model.graph = graph;
        if let Fit::Crop { short } = fit {
            model.pixels.fit = Fit::Crop { short: (short * size / height.min(width)).max(1) };
        }
        (model.pixels.height, model.pixels.width) = (size, size);
        return Ok(());
    };
    let gray = model.pixels.color == Color::Gray;
    let config = Config { width: multiplier, size, gray, ..arch.config(model.labels.len()) };
    model.graph = arch.graph(&config)?;
    let Pixels { height, width, fit, .. } = arch.pixels(&config);
    // A fit of the user's own choice stays; a crop's short side goes with the size.
    if matches!(model.pixels.fit, Fit::Crop { .. }) {
        model.pixels.fit = fit;
    }
    (model.pixels.height, model.pixels.width) = (height, width);
    Ok(())
}

fn to_gray(model: &mut Model) -> Result<()> {
    let unknown = || {
        Error::Unsupported(format!("{}: a gray input needs a convolution and BatchNorm first", model.arch))
    };
    let [image, stem, normal, ..] = model.graph.nodes() else { return Err(unknown()) };
    let (Op::Conv(conv), Op::BatchNorm { .. }) = (&stem.op, &normal.op) else { return Err(unknown()) };
    if conv.groups != 1 || image.shape[3] != 3 {
        return Err(unknown());
    }
    let (weight_name, mean_name) = (format!("{}.weight", stem.name), format!("{}.mean", normal.name));
    let (Some(weight), Some(bn_mean)) = (model.weights.get(&weight_name), model.weights.get(&mean_name))
    else {
        return Err(unknown());
    };
    let average = |values: [f32; 3]| values.iter().sum::<f32>() / 3.0;
    let Pixels { mean, std, .. } = model.pixels;
    let (gray_mean, gray_std) = (average(mean), average(std));
    let mut summed = Vec::with_capacity(weight.len() / 3);
    let mut shifts = Vec::with_capacity(conv.out_channels);
    let values = weight.to_f32();
    for filter in values.chunks_exact(weight.len() / conv.out_channels) {
        let mut shift = 0.0;
        for tap in filter.as_chunks::<3>().0 {
            summed.push((0..3).map(|c| tap[c] * gray_std / std[c]).sum());
            shift += (0..3).map(|c| tap[c] * (gray_mean - mean[c]) / std[c]).sum::<f32>();
        }
        shifts.push(shift);
    }
    let shape = [&weight.shape[..3], &[1]].concat();
    // The constant part goes where BatchNorm subtracts its mean.
    let bn_mean: Vec<f32> = bn_mean.to_f32().iter().zip(&shifts).map(|(mean, shift)| mean - shift).collect();
    model.weights.insert(mean_name, Tensor::f32(&[bn_mean.len()], bn_mean));
    model.weights.insert(weight_name, Tensor::f32(&shape, summed));
    let [n, height, width, _] = image.shape;
    model.graph = model
        .graph
        .with_input([n, height, width, 1])
        .map_err(|error| Error::Unsupported(format!("{}: {error}", model.arch)))?;
    model.pixels.color = Color::Gray;
    (model.pixels.mean, model.pixels.std) = ([gray_mean; 3], [gray_std; 3]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use penjing_runtime::{
        graph::Graph,
        pixels::{Rgb, View},
    };

    use super::*;
    use crate::{model, runner::Runner};

    fn logits(model: &Model, photo: Rgb<'_>) -> Vec<f32> {
        Runner::new(&model.graph, &model.weights, &model.pixels, 1).unwrap().run(photo, View::PLAIN)
    }

    #[test]
    fn a_gray_photo_gives_the_features_that_it_gave_as_rgb() {
        let backbone = model::bundled().unwrap();
        let levels = (0..90 * 70).map(|i| (i * 7919 % 251) as u8);
        let data: Vec<u8> = levels.flat_map(|level| [level; 3]).collect();
        let photo = Rgb { width: 90, height: 70, data: &data };
        let gray = adapt(&backbone, &Input { gray: true, ..Input::default() }).unwrap();
        assert_eq!(gray.graph.input_shape(), Some([1, 224, 224, 1]));
        let worst = logits(&backbone, photo)
            .iter()
            .zip(logits(&gray, photo))
            .fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < 1e-3, "{worst}");

        // Other means and deviations for each channel: equal but for the border.
        let mut uneven = backbone.clone();
        (uneven.pixels.mean, uneven.pixels.std) = ([120.0, 127.0, 130.0], [110.0, 128.0, 140.0]);
        let gray = adapt(&uneven, &Input { gray: true, ..Input::default() }).unwrap();
        let (rgb, gray) = (logits(&uneven, photo), logits(&gray, photo));
        let scale = rgb.iter().fold(0f32, |m, a| m.max(a.abs()));
        let worst = rgb.iter().zip(&gray).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < 0.1 * scale, "{worst} of {scale}");
    }

    #[test]
    fn another_size_and_fit_reach_the_contract() {
        let backbone = model::bundled().unwrap();
        let input = Input { size: Some(160), fit: Some(FitKind::Pad), ..Input::default() };
        let small = adapt(&backbone, &input).unwrap();
        assert_eq!(small.graph.input_shape(), Some([1, 160, 160, 3]));
        assert_eq!(small.pixels.fit, Fit::Pad { fill: [127; 3] });
        let again = adapt(&small, &Input { size: Some(96), gray: true, ..Input::default() }).unwrap();
        assert_eq!((again.pixels.height, again.pixels.fit), (96, Fit::Pad { fill: [127; 3] }));
        let back = adapt(&again, &Input { size: Some(224), ..Input::default() }).unwrap();
        assert_eq!(back.graph.input_shape(), Some([1, 224, 224, 1]));
        assert!(adapt(&backbone, &Input { size: Some(7), ..Input::default() }).is_err());
    }

    #[test]
    fn a_network_that_only_its_graph_describes_is_resized_where_that_can_be() {
        let mut backbone = model::bundled().unwrap();
        backbone.arch = "onnx".into();
        let small = adapt(&backbone, &Input { size: Some(160), ..Input::default() }).unwrap();
        assert_eq!(small.graph.input_shape(), Some([1, 160, 160, 3]));
        assert_eq!(small.pixels.fit, Fit::Crop { short: 182 });

        // What reads a map laid flat fits one size only.
        let mut graph = Graph::default();
        let image = graph.push("image", Op::Input { shape: [1, 8, 8, 3] }, &[]).unwrap();
        let flat = graph.push("flat", Op::Flatten, &[image]).unwrap();
        graph.push("fc", Op::Linear { out_features: 1000, bias: false }, &[flat]).unwrap();
        (backbone.pixels.height, backbone.pixels.width) = (8, 8);
        backbone.weights = crate::zoo::random_weights(&graph, 1);
        backbone.graph = graph;
        let error = adapt(&backbone, &Input { size: Some(16), ..Input::default() }).unwrap_err().to_string();
        assert!(error.contains("inputs of 16 pixels") && error.contains("leave it at 8 × 8"), "{error}");
    }
}
