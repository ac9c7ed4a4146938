//! A backbone made to see photos in another way: another size, gray, another fit.

use penjing_runtime::{
    Error as RuntimeError,
    file::Model,
    graph::Node,
    op::Op,
    pixels::{Color, DecodeRule, Fit, Pixels},
    tensor::Tensor,
};

use crate::{Error, Result, zoo::resize::resize};

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
    if model.graph.classifier().is_none() {
        with_linear_head(&mut model)?;
    }
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

/// Where a 1×1 convolution classifies each place of the last map, and the mean over the map comes after it (SqueezeNet): the
/// same features and weights with the mean first, so that a head can be put in the place of the classifier. What is lost is
/// an activation of the logits, which would keep a network from learning.
fn with_linear_head(model: &mut Model) -> Result<()> {
    let graph = &model.graph;
    let unsupported = |error: RuntimeError| Error::Unsupported(format!("{}: {error}", model.arch));
    let mut at = match graph.nodes().last() {
        Some(Node { op: Op::GlobalAvgPool, inputs, .. }) => inputs[0],
        _ => return Ok(()),
    };
    if let Op::Act(_) = graph.node(at).op {
        at = graph.node(at).inputs[0];
    }
    let Node { name, op: Op::Conv(conv), inputs, .. } = graph.node(at) else { return Ok(()) };
    if (conv.kernel, conv.stride, conv.padding, conv.groups, conv.bias) != ([1; 2], [1; 2], [0; 4], 1, true) {
        return Ok(());
    }
    let mut body = graph.up_to(inputs[0]);
    let mut x = body.push("pool", Op::GlobalAvgPool, inputs).map_err(unsupported)?;
    x = body
        .push(name, Op::Linear { out_features: conv.out_channels, bias: true }, &[x])
        .map_err(unsupported)?;
    let weight = format!("{name}.weight");
    if let Some(tensor) = model.weights.get_mut(&weight) {
        tensor.shape = vec![conv.out_channels, body.shape(inputs[0])[3]];
    }
    debug_assert_eq!(body.output(), Some(x));
    model.graph = body;
    Ok(())
}

fn to_gray(model: &mut Model) -> Result<()> {
    let unknown = || {
        let what = "a gray input needs a convolution with bias or BatchNorm first";
        Error::Unsupported(format!("{}: {what}", model.arch))
    };
    let [image, stem, normal, ..] = model.graph.nodes() else { return Err(unknown()) };
    let Op::Conv(conv) = &stem.op else { return Err(unknown()) };
    if conv.groups != 1 || image.shape[3] != 3 {
        return Err(unknown());
    }
    // The constant part goes where BatchNorm subtracts its mean, or into the bias.
    let (constant_name, sign) = match normal.op {
        Op::BatchNorm { .. } => (format!("{}.mean", normal.name), -1.0),
        _ => (format!("{}.bias", stem.name), 1.0),
    };
    let weight_name = format!("{}.weight", stem.name);
    let (Some(weight), Some(constant)) = (model.weights.get(&weight_name), model.weights.get(&constant_name))
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
    let constant: Vec<f32> =
        constant.to_f32().iter().zip(&shifts).map(|(value, shift)| value + sign * shift).collect();
    model.weights.insert(constant_name, Tensor::f32(&[constant.len()], constant));
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
        file::{Calibration, Provenance},
        graph::Graph,
        pixels::{Rgb, View},
    };

    use super::*;
    use crate::{
        model,
        runner::Runner,
        zoo::{ARCHS, Arch, Config, Form, random_weights},
    };

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

    /// A model of the zoo that has learnt nothing.
    fn fresh(arch: &Arch, form: &'static Form, size: usize) -> Model {
        let config = Config { size, form, ..arch.config(7) };
        let graph = arch.graph(&config).unwrap();
        Model {
            arch: arch.name.into(),
            weights: random_weights(&graph, 1),
            graph,
            pixels: arch.pixels(&config),
            labels: (0..7).map(|class| class.to_string()).collect(),
            calibration: Calibration { temperature: 1.0 },
            provenance: Provenance::default(),
        }
    }

    #[test]
    fn a_network_of_another_size_is_the_one_that_is_built_for_it() {
        for arch in ARCHS {
            for form in arch.forms {
                for [from, to] in [[96, 128], [64, 75], [150, 97]] {
                    let resized =
                        adapt(&fresh(arch, form, from), &Input { size: Some(to), ..Input::default() });
                    let built = adapt(&fresh(arch, form, to), &Input::default()).unwrap();
                    let resized = resized.unwrap();
                    assert!(resized.graph == built.graph, "{} of {}: {from} → {to}", arch.name, form.of);
                }
            }
        }
    }

    #[test]
    fn squeezenet_s_classifier_becomes_a_head_of_the_same_logits() {
        let arch = Arch::named("squeezenet1_1").unwrap().0;
        let mut model = fresh(arch, &arch.forms[0], 64);
        // Without the activation of the logits the two are equal.
        let bias = model.weights.get_mut("classifier.bias").unwrap();
        *bias = Tensor::f32(&[7], vec![100.0; 7]);
        let headed = adapt(&model, &Input::default()).unwrap();
        assert!(headed.graph.classifier().is_some());
        let data: Vec<u8> = (0..64 * 64 * 3).map(|i| (i * 7919 % 251) as u8).collect();
        let photo = Rgb { width: 64, height: 64, data: &data };
        for (a, b) in logits(&model, photo).iter().zip(logits(&headed, photo)) {
            assert!((a - b).abs() < 1e-3 * a.abs(), "{a} {b}");
        }
        let gray = adapt(&headed, &Input { gray: true, ..Input::default() }).unwrap();
        let levels: Vec<u8> = data[..64 * 64].iter().flat_map(|&level| [level; 3]).collect();
        let photo = Rgb { width: 64, height: 64, data: &levels };
        // The stem is not padded, so that there is no border to differ.
        for (a, b) in logits(&headed, photo).iter().zip(logits(&gray, photo)) {
            assert!((a - b).abs() < 1e-3 * a.abs(), "{a} {b}");
        }
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
        let image = graph.push("image", Op::Input { shape: [1, 32, 32, 3] }, &[]).unwrap();
        let flat = graph.push("flat", Op::Flatten, &[image]).unwrap();
        graph.push("fc", Op::Linear { out_features: 1000, bias: false }, &[flat]).unwrap();
        (backbone.pixels.height, backbone.pixels.width) = (32, 32);
        backbone.weights = crate::zoo::random_weights(&graph, 1);
        backbone.graph = graph;
        let error = adapt(&backbone, &Input { size: Some(64), ..Input::default() }).unwrap_err().to_string();
        assert!(error.contains("inputs of 64 pixels") && error.contains("leave it at 32 × 32"), "{error}");
    }
}
