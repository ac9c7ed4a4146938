//! ONNX files of other tools against onnxruntime (`scripts/goldens/onnx_files.py`).

use std::path::{Path, PathBuf};

use penjing::{
    Error,
    export::{OnnxOptions, to_onnx},
    import::{self, Onnx, OnnxDetails, parse_onnx, read_onnx},
    zoo::{self, Config},
};
use penjing_runtime::{
    Act, Isa, PlanBuf, Serial, Session,
    file::{Calibration, Model, Provenance},
    graph::Graph,
    op::{AvgPool, Conv, Op, Pool},
    pixels::{Fit, Pixels},
    quant::Quant,
    tensor::{Tensor, Weights},
};
use serde_json::Value as Json;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx").join(name)
}

/// What the script says about each of its files.
fn expected() -> serde_json::Map<String, Json> {
    let text = std::fs::read_to_string(golden("expected.json")).unwrap();
    let Json::Object(files) = serde_json::from_str(&text).unwrap() else { panic!("expected.json") };
    files
}

fn list<T>(json: &Json, item: impl Fn(&Json) -> Option<T>) -> Vec<T> {
    json.as_array().unwrap().iter().map(|json| item(json).unwrap()).collect()
}

fn floats(json: &Json) -> Vec<f32> {
    list(json, |value| value.as_f64().map(|value| value as f32))
}

/// Values −1..1 from SplitMix64, as the script draws them.
fn image(values: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..values).map(|_| next()).collect()
}

fn logits(graph: &Graph, weights: &Weights) -> Vec<f32> {
    let plan = PlanBuf::lower(graph, weights, 1).unwrap();
    let mut session = Session::new(plan.into(), Isa::detect());
    let x = image(session.input().len());
    session.input().copy_from_slice(&x);
    session.run(&Serial).to_vec()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let exp: Vec<f32> = logits.iter().map(|logit| logit.exp()).collect();
    let sum: f32 = exp.iter().sum();
    exp.iter().map(|value| value / sum).collect()
}

fn near(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
    let worst = ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= tolerance * largest, "{what}: differs by {worst} of {largest}: {ours:?}, {theirs:?}");
}

#[test]
fn files_of_other_tools_give_the_logits_of_onnxruntime() {
    let mut count = 0;
    for (name, json) in expected() {
        if json["logits"].is_null() {
            continue;
        }
        count += 1;
        let size = json["size"].as_u64().map(|size| size as usize);
        let open = json["needs_size"] == true;
        if open {
            let error = read_onnx(&golden(&name), OnnxDetails::default()).unwrap_err();
            assert!(error.to_string().contains("--size PX"), "{name}: {error}");
        }
        let details = OnnxDetails { size: size.filter(|_| open), ..OnnxDetails::default() };
        let Onnx { model, skipped, has_contract } =
            read_onnx(&golden(&name), details).unwrap_or_else(|error| panic!("{error}"));
        assert!(!has_contract, "{name}");
        assert_eq!(skipped, list(&json["skipped"], |s| s.as_str().map(str::to_string)), "{name}");
        assert!(
            model.graph.classifier().is_some() || name.starts_with("squeezenet"),
            "{name}: no linear end"
        );
        let Pixels { height, width, fit, mean, std, .. } = model.pixels;
        assert_eq!([Some(height), Some(width)], [size; 2], "{name}");
        assert_eq!(fit, Fit::Crop { short: height * 8 / 7 }, "{name}");
        if let Some(theirs) = json.get("mean") {
            near(&format!("{name}: mean"), &mean, &floats(theirs), 1e-5);
            near(&format!("{name}: std"), &std, &floats(&json["std"]), 1e-5);
        } else {
            assert_eq!((mean[0], std[2]), (123.675, 57.375), "{name}");
        }
        if let Some(labels) = json.get("labels").filter(|labels| !labels.is_null()) {
            assert_eq!(model.labels, list(labels, |s| s.as_str().map(str::to_string)), "{name}");
        }
        let ours = logits(&model.graph, &model.weights);
        let ours = if json["softmax"] == true { softmax(&ours) } else { ours };
        let tolerance = json["tolerance"].as_f64().unwrap() as f32;
        near(&name, &ours, &floats(&json["logits"]), tolerance);
    }
    assert!(count > 30, "only {count} files were read");
}

#[test]
fn what_exporters_take_apart_is_put_together() {
    let ops = |name: &str| -> Vec<&'static str> {
        let model = read_onnx(&golden(name), OnnxDetails::default()).unwrap().model;
        let acts = |op: &Op| match op {
            Op::Act(act) => match act {
                penjing_runtime::Act::HSwish => "h_swish",
                penjing_runtime::Act::HSigmoid => "h_sigmoid",
                penjing_runtime::Act::Silu => "silu",
                penjing_runtime::Act::Relu6 => "relu6",
                _ => "act",
            },
            op => op.name(),
        };
        model.graph.nodes().iter().map(|node| acts(&node.op)).collect()
    };
    for exporter in ["script", "dynamo"] {
        let swish = ops(&format!("swish_{exporter}.onnx"));
        assert_eq!(swish.iter().filter(|op| **op == "h_swish").count(), 2, "{swish:?}");
        assert!(swish.contains(&"silu") && !swish.contains(&"batch_norm"), "{swish:?}");
        let shuffle = ops(&format!("shufflenet_{exporter}.onnx"));
        assert_eq!(shuffle.iter().filter(|op| **op == "channel_shuffle").count(), 2, "{shuffle:?}");
        let same = ops(&format!("efficientnet_{exporter}.onnx"));
        assert!(!same.contains(&"pad") && same.contains(&"silu"), "{same:?}");
        let v3 = ops(&format!("mobilenet_v3_{exporter}.onnx"));
        assert_eq!(v3.iter().filter(|op| **op == "h_sigmoid").count(), 2, "{v3:?}");
    }
    assert_eq!(ops("channels_last.onnx"), ["input", "conv", "relu6", "conv", "global_avg_pool", "linear"]);
    // What two layers read is changed once, and what one of them changes further is no business of the other.
    assert_eq!(
        ops("scaled.onnx"),
        [
            "input",
            "conv",
            "act",
            "conv",
            "act",
            "conv",
            "add",
            "conv",
            "h_swish",
            "add",
            "global_avg_pool",
            "linear"
        ]
    );
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    let mut count = 0;
    for (name, json) in expected() {
        if json["error"].is_null() {
            continue;
        }
        count += 1;
        let error = read_onnx(&golden(&name), OnnxDetails::default()).expect_err(&name);
        assert!(matches!(error, Error::Model { .. }), "{name}: {error}");
        for part in [name].into_iter().chain(list(&json["error"], |part| part.as_str().map(str::to_owned))) {
            assert!(error.to_string().contains(&part), "`{part}` is missing: {error}");
        }
    }
    assert!(count > 20, "only {count} files were refused");
}

#[test]
fn weights_in_another_file_need_its_folder() {
    let bytes = std::fs::read(golden("external.onnx")).unwrap();
    let error = parse_onnx(Path::new("m.onnx"), &bytes, OnnxDetails::default()).unwrap_err();
    assert!(error.to_string().contains("give the model's path"), "{error}");
}

#[test]
fn the_content_tells_the_format() {
    assert!(import::is_onnx(&std::fs::read(golden("plain.onnx")).unwrap()));
    for other in ["state_dicts/plain_zip.pth", "state_dicts/plain_legacy.pth", "state_dicts/all.safetensors"]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(other);
        assert!(!import::is_onnx(&std::fs::read(&path).unwrap()), "{other}");
    }
    let error = import::read_state_dict(&golden("plain.onnx")).unwrap_err();
    assert!(error.to_string().contains("is an ONNX file"), "{error}");
}

#[test]
fn what_the_caller_says_counts() {
    let details = OnnxDetails {
        size: Some(20),
        labels: Some(["a", "b", "c", "d"].map(String::from).to_vec()),
        mean: Some([1.0, 2.0, 3.0]),
        std: Some([4.0, 5.0, 6.0]),
        source: Some("a friend".into()),
        license: Some("MIT".into()),
    };
    let model = read_onnx(&golden("plain.onnx"), details).unwrap().model;
    assert_eq!(model.graph.input_shape(), Some([1, 20, 20, 3]));
    assert_eq!((model.pixels.mean, model.pixels.std), ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]));
    assert_eq!((model.labels[3].as_str(), model.arch.as_str()), ("d", "onnx"));
    assert_eq!((&model.provenance.backbone[..], &model.provenance.license[..]), ("a friend", "MIT"));
    let few = OnnxDetails { labels: Some(vec!["a".into()]), ..OnnxDetails::default() };
    let error = read_onnx(&golden("plain.onnx"), few).unwrap_err();
    assert!(error.to_string().contains("1 labels were given for 4 classes"), "{error}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_another_network() {
    let whole = read_onnx(&golden("plain.onnx"), OnnxDetails::default()).unwrap();
    let bytes = std::fs::read(golden("plain.onnx")).unwrap();
    for end in 0..bytes.len() {
        // The last fields, which name versions, may be cut off between two of them.
        if let Ok(read) = parse_onnx(Path::new("m.onnx"), &bytes[..end], OnnxDetails::default()) {
            assert!(read.model.weights == whole.model.weights && end + 16 > bytes.len(), "cut at {end}");
        }
    }
}

#[test]
fn a_changed_byte_never_panics() {
    for name in ["plain", "steps", "channels_last", "shuffle_slice_pad", "gate_norm_pool", "int8_weights"] {
        let mut bytes = std::fs::read(golden(&format!("{name}.onnx"))).unwrap();
        for at in 0..bytes.len() {
            let before = bytes[at];
            for change in [0x01, 0x02, 0x80, 0xff] {
                bytes[at] = before ^ change;
                let _ = parse_onnx(Path::new("m.onnx"), &bytes, OnnxDetails::default());
            }
            bytes[at] = before;
        }
    }
}

/// A model of this graph with random weights, its normalizations not the identity.
fn model(arch: &str, graph: Graph, pixels: Pixels) -> Model {
    let mut weights = zoo::random_weights(&graph, 7);
    for (name, tensor) in &mut weights {
        let spread = |values: Vec<f32>, by: f32| -> Vec<f32> {
            values.iter().enumerate().map(|(at, value)| value + by * (at % 7) as f32).collect()
        };
        let by = match name.rsplit_once('.').unwrap().1 {
            "gamma" | "mean" | "beta" => 0.05,
            "var" => 0.1,
            "bias" => 0.01,
            _ => continue,
        };
        *tensor = Tensor::f32(&tensor.shape.clone(), spread(tensor.to_f32(), by));
    }
    let classes = graph.shape(graph.output().unwrap())[3];
    Model {
        arch: arch.to_string(),
        graph,
        weights,
        pixels,
        labels: (0..classes).map(|class| format!("class “{class}”")).collect(),
        calibration: Calibration { temperature: 1.375 },
        provenance: Provenance {
            backbone: "somewhere".into(),
            license: "MIT".into(),
            penjing: "0.0.1".into(),
            ..Provenance::default()
        },
    }
}

/// A graph in which each operation stands, and each activation; the one that does nothing where asked for.
fn every_op(none: bool) -> Graph {
    let mut graph = Graph::default();
    let mut x = graph.push("image", Op::Input { shape: [1, 19, 17, 3] }, &[]).unwrap();
    let mut push = |name: &str, op: Op, inputs: &[_]| graph.push(name, op, inputs).unwrap();
    let conv = Conv { padding: [0, 1, 2, 0], bias: true, ..Conv::new(8, 3, 1) };
    x = push("logits", Op::Conv(conv), &[x]);
    x = push("bn", Op::BatchNorm { eps: 1e-3 }, &[x]);
    let acts = [
        Act::Relu6,
        Act::HSwish,
        Act::LeakyRelu(0.2),
        Act::Silu,
        Act::HSigmoid,
        Act::Sigmoid,
        if none { Act::None } else { Act::Relu6 },
        Act::Relu,
    ];
    for (at, act) in acts.into_iter().enumerate() {
        x = push(&format!("act{at}"), Op::Act(act), &[x]);
    }
    let skip = x;
    x = push(
        "grouped",
        Op::Conv(Conv { padding: [2; 4], dilation: [2, 2], groups: 4, ..Conv::new(8, 3, 1) }),
        &[x],
    );
    x = push("bn2", Op::BatchNorm { eps: 1e-5 }, &[x]);
    x = push("add", Op::Add, &[x, skip]);
    x = push("bn3", Op::BatchNorm { eps: 1e-5 }, &[x]);
    // BatchNorm of a convolution that another layer reads too.
    let shared = push("shared", Op::Conv(Conv::new(8, 1, 1)), &[x]);
    x = push("shared.bn", Op::BatchNorm { eps: 1e-5 }, &[shared]);
    x = push("shared.add", Op::Add, &[x, shared]);
    let pooled = push("pooled", Op::GlobalAvgPool, &[x]);
    let squeezed = push("squeezed", Op::Linear { out_features: 8, bias: true }, &[pooled]);
    let gate = push("gate", Op::Act(Act::HSigmoid), &[squeezed]);
    x = push("mul", Op::Mul, &[x, gate]);
    x = push("square", Op::Mul, &[x, skip]);
    let [a, b] =
        [("low", 0, 3), ("high", 3, 5)].map(|(name, start, len)| push(name, Op::Slice { start, len }, &[x]));
    x = push("cat", Op::Concat, &[b, a]);
    x = push("shuffle", Op::ChannelShuffle { groups: 4 }, &[x]);
    x = push("pad", Op::Pad { padding: [1, 0, 0, 2] }, &[x]);
    let window = |ceil_mode| Pool { kernel: [3, 2], stride: [2, 2], padding: [1, 0, 0, 1], ceil_mode };
    x = push("max", Op::MaxPool(window(true)), &[x]);
    x = push("mean", Op::AvgPool(AvgPool { window: window(false), count_include_pad: true }), &[x]);
    x = push("mean2", Op::AvgPool(AvgPool { window: window(true), count_include_pad: false }), &[x]);
    x = push("flat", Op::Flatten, &[x]);
    x = push("flat.bn", Op::BatchNorm { eps: 1e-5 }, &[x]);
    x = push("flat.act", Op::Act(Act::HSwish), &[x]);
    x = push("drop", Op::Dropout { rate: 0.25 }, &[x]);
    let hidden = push("hidden", Op::Linear { out_features: 6, bias: false }, &[x]);
    x = push("hidden.bn", Op::BatchNorm { eps: 1e-5 }, &[hidden]);
    x = push("hidden.soft", Op::Softmax, &[x]);
    push("classifier", Op::Linear { out_features: 4, bias: true }, &[x]);
    graph
}

/// Every network of the zoo at a small size, and the graph of every operation.
fn models() -> Vec<Model> {
    let mut models: Vec<Model> = zoo::ARCHS
        .iter()
        .map(|arch| {
            let width = if arch.widths.is_empty() { 0.5 } else { arch.widths[0] };
            let config = Config { width, size: 64, ..arch.config(5) };
            model(&arch.name_at(config.width), arch.graph(&config).unwrap(), arch.pixels(&config))
        })
        .collect();
    let pixels = Pixels { height: 19, width: 17, ..models[0].pixels.clone() };
    models.push(model("onnx", every_op(false), pixels.clone()));
    models.push(model("none", every_op(true), pixels));
    models
}

#[test]
fn what_is_exported_comes_back_with_the_same_answers() {
    for model in models() {
        let ours = logits(&model.graph, &model.weights);
        for (keep_batch_norm, dynamic_batch, with_preprocessing) in
            [(false, false, false), (true, false, false), (false, true, false), (false, true, true)]
        {
            let options = OnnxOptions { keep_batch_norm, with_preprocessing, dynamic_batch };
            let what = format!("{} {options:?}", model.arch);
            let bytes = to_onnx(&model, options).unwrap();
            assert_eq!(bytes, to_onnx(&model, options).unwrap(), "{what}");
            let back = parse_onnx(Path::new("m.onnx"), &bytes, OnnxDetails::default())
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((&back.skipped[..], back.has_contract), (&[][..], true), "{what}");
            let back = back.model;
            // Where BatchNorm is folded, the graph is not the one that the zoo calls so.
            let arch = if keep_batch_norm && model.arch != "none" { &model.arch[..] } else { "onnx" };
            assert_eq!((&back.arch[..], &back.labels), (arch, &model.labels), "{what}");
            assert_eq!(back.calibration, model.calibration, "{what}");
            let Provenance { backbone, license, .. } = back.provenance;
            assert_eq!((&backbone[..], &license[..]), ("somewhere", "MIT"), "{what}");
            if with_preprocessing {
                near(&what, &back.pixels.mean, &model.pixels.mean, 1e-5);
                near(&what, &back.pixels.std, &model.pixels.std, 1e-5);
            } else {
                assert_eq!(back.pixels, model.pixels, "{what}");
            }
            if keep_batch_norm && model.arch != "none" {
                for (ours, theirs) in model.graph.nodes().iter().zip(back.graph.nodes()) {
                    assert_eq!(ours, theirs, "{what}");
                }
                assert!(model.weights == back.weights, "{what}");
            }
            assert_eq!(logits(&back.graph, &back.weights), ours, "{what}");
        }
    }
}

#[test]
fn integers_come_back_as_what_they_mean() {
    for mut model in models() {
        for (_, tensor) in model.weights.iter_mut().filter(|(name, _)| name.ends_with(".weight")) {
            *tensor = tensor.to_i8();
        }
        let ours = logits(&model.graph, &model.weights);
        let bytes = to_onnx(&model, OnnxOptions::default()).unwrap();
        let weights: usize = model.weights.values().map(|tensor| tensor.len()).sum();
        assert!(bytes.len() < 2 * weights + 60_000, "{}: {} bytes", model.arch, bytes.len());
        let back = parse_onnx(Path::new("m.onnx"), &bytes, OnnxDetails::default()).unwrap().model;
        assert_eq!(logits(&back.graph, &back.weights), ours, "{}", model.arch);
        // What is computed in 8 bits is another matter.
        let input = model.graph.iter().next().unwrap().0;
        model.graph.set_quant(input, Some(Quant::over(-1.0, 1.0))).unwrap();
        let bytes = to_onnx(&model, OnnxOptions::default()).unwrap();
        let error = parse_onnx(Path::new("m.onnx"), &bytes, OnnxDetails::default()).unwrap_err();
        assert!(error.to_string().contains("QuantizeLinear"), "{error}");
    }
}
