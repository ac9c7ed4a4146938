//! Model files: written, read, damaged, and of earlier versions. The model is that of `examples/golden_model.rs`.
#![cfg(feature = "file")]

use penjing_runtime::{
    Error, Isa, PlanBuf, Serial, Session,
    file::{FORMAT, Model},
    graph::Graph,
    nibbles::Nibbles,
    op::{Act, Op},
    quant::Quant,
    tensor::{Data, Tensor},
};
use safetensors::{Dtype, SafeTensors};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens");

fn golden() -> Vec<u8> {
    std::fs::read(format!("{GOLDENS}/v1.penjing")).expect("the golden file is in the repository")
}

fn model() -> Model {
    Model::from_bytes(&golden()).expect("the golden file is sound")
}

/// Values −1..1 from SplitMix64, as the script draws them.
fn noise(seed: u64, values: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..values).map(|_| next()).collect()
}

/// Header and data.
fn parts(bytes: &[u8]) -> (String, &[u8]) {
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (String::from_utf8(header.to_vec()).unwrap(), data)
}

fn joined(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Puts the hash right, by what the format says about it.
fn hashed(mut bytes: Vec<u8>) -> Vec<u8> {
    let mark = br#""penjing":"{\"hash\":\""#;
    let at = bytes.windows(mark.len()).position(|window| window == mark).expect("a document") + mark.len();
    bytes[at..at + 64].fill(b'0');
    let hash = blake3::hash(&bytes).to_hex();
    bytes[at..at + 64].copy_from_slice(hash.as_bytes());
    bytes
}

/// The golden file with `from` replaced by `to` in its document, hashed anew.
fn edited(from: &str, to: &str) -> Vec<u8> {
    let bytes = golden();
    let (header, data) = parts(&bytes);
    let [from, to] = [from, to].map(|text| text.replace('"', "\\\""));
    assert_eq!(header.matches(&from).count(), 1, "{from} stands once in the document");
    hashed(joined(&header.replace(&from, &to), data))
}

/// The message about bytes that are no model.
fn refused(bytes: &[u8]) -> String {
    match Model::from_bytes(bytes) {
        Ok(_) => panic!("a bad file was read"),
        Err(error) => error.to_string(),
    }
}

/// The message about a model that the closure spoils.
fn unwritable(spoil: impl FnOnce(&mut Model)) -> String {
    let mut model = model();
    spoil(&mut model);
    model.to_bytes().expect_err("a bad model was written").to_string()
}

fn says(message: &str, part: &str) {
    assert!(message.contains(part), "`{message}` does not say `{part}`");
}

#[test]
fn version_1_gives_the_logits_of_pytorch() {
    // `scripts/goldens/v1_model.py` reads the same file.
    let logits = std::fs::read_to_string(format!("{GOLDENS}/v1_logits.csv")).unwrap();
    let model = model();
    let plan = std::sync::Arc::new(PlanBuf::lower(&model.graph, &model.weights, 1).unwrap());
    for (seed, line) in [1, 2].into_iter().zip(logits.lines()) {
        let expected: Vec<f32> = line.split(',').map(|value| value.parse().unwrap()).collect();
        for isa in Isa::available() {
            let mut session = Session::new(plan.clone(), isa);
            session.input().copy_from_slice(&noise(seed, 12 * 10 * 3));
            let found = session.run(&Serial);
            assert_eq!(found.len(), expected.len());
            let worst = found.iter().zip(&expected).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 1e-5, "{}: {found:?}, expected {expected:?}", isa.name());
        }
    }
}

#[test]
fn version_1_holds_what_was_put_in() {
    let model = model();
    assert_eq!(model.arch, "golden");
    assert_eq!(model.labels, ["ash", "birch \"white\"", "盆景"]);
    assert_eq!(model.calibration.temperature, 1.25);
    assert_eq!((model.provenance.seed, model.provenance.val_top1), (Some(7), Some(0.8125)));
    let mut names: Vec<&str> = model.graph.nodes().iter().map(|node| node.op.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 17, "every operation is in the golden model");
    assert!(matches!(model.weights["head.weight"].data, Data::F16(_)));
    assert!(matches!(model.weights["head.bias"].data, Data::F32(_)));
    // Today's writer still writes version 1 in the same way.
    assert!(model.to_bytes().unwrap() == golden());
}

#[test]
fn what_is_written_is_read() {
    let mut model = model();
    for (name, tensor) in &mut model.weights {
        *tensor = Tensor::f32(&tensor.shape, noise(name.len() as u64, tensor.len()));
    }
    for half in [false, true] {
        let model = if half { model.clone().to_half() } else { model.clone() };
        let bytes = model.to_bytes().unwrap();
        assert!(Model::from_bytes(&bytes).unwrap() == model);
        assert!(model.to_bytes().unwrap() == bytes, "the same model gives the same bytes");
    }
    assert!(model.clone().to_half().to_bytes().unwrap().len() < model.to_bytes().unwrap().len());
}

#[test]
fn numbers_and_text_come_back_exactly() {
    let mut model = model();
    let mut text: String = (0..0x300).filter_map(char::from_u32).collect();
    text.push_str("\"hash\":\"\u{2028}\u{1f333}\\");
    model.labels[0] = text.clone();
    model.arch = r#"","penjing":"{\"hash\":\""#.into();
    model.provenance.recipe = vec![String::new(), text];
    for (index, share) in noise(5, 2000).into_iter().enumerate() {
        model.provenance.val_top1 = Some(f64::from(share).abs().powf(0.3));
        model.calibration.temperature =
            (share.abs() * 10f32.powi(index as i32 % 60 - 30)).max(f32::MIN_POSITIVE);
        model.pixels.mean[0] = share * 255.0;
        model.provenance.seed = Some(u64::MAX - index as u64);
        let bytes = model.to_bytes().unwrap();
        let read = Model::from_bytes(&bytes).unwrap();
        assert_eq!((&read.calibration, &read.provenance), (&model.calibration, &model.provenance));
        assert!(read == model);
    }
}

#[test]
fn other_tools_read_the_weights_and_find_them_aligned() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let model = model();
    assert_eq!(file.len(), model.weights.len());
    for (name, view) in file.tensors() {
        let ours = &model.weights[&name];
        assert_eq!(view.shape(), ours.shape);
        assert_eq!(view.data(), ours.to_le_bytes());
        let size = match view.dtype() {
            Dtype::F32 => 4,
            Dtype::F16 => 2,
            other => panic!("{name} is {other:?}"),
        };
        let offset = view.data().as_ptr().addr() - bytes.as_ptr().addr();
        assert_eq!(offset % size, 0, "{name} is not aligned in the file");
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap().len(), 1, "one key in the metadata");
}

#[test]
fn every_changed_byte_is_found() {
    let mut bytes = golden();
    for at in 0..bytes.len() {
        let was = bytes[at];
        for change in [1, 2, 4, 8, 16, 32, 64, 128, 0xff, was] {
            if change == 0 {
                continue;
            }
            bytes[at] = was ^ change;
            assert!(Model::from_bytes(&bytes).is_err(), "byte {at} changed from {was} to {}", bytes[at]);
        }
        bytes[at] = was;
    }
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    says(&refused(&bytes), "the file is damaged: its hash does not match its contents; copy it again");
    // In the header's syntax it is still known for a model.
    let mut bytes = golden();
    bytes[8] = b'[';
    says(&refused(&bytes), "the file is damaged");
}

#[test]
fn files_of_another_length_are_refused() {
    let bytes = golden();
    for length in 0..bytes.len() {
        assert!(Model::from_bytes(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    says(
        &refused(&bytes[..bytes.len() - 1]),
        "the file is cut short or padded: 1771 bytes of weights, 1772 expected",
    );
    says(&refused(&bytes[..1000]), "the file is cut short: its header has");
    for more in [&b"\0"[..], b" ", b"\n", &[0xff; 64], &bytes] {
        says(&refused(&[&bytes[..], more].concat()), "cut short or padded");
    }
    says(&refused(&[&b"\0"[..], &bytes].concat()), "not a penjing model");
}

#[test]
fn header_lengths_are_not_believed() {
    let mut bytes = golden();
    for length in [1u64 << 62, u64::MAX, u64::MAX - 7, (32 << 20) + 1] {
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        says(&refused(&bytes), "its header length is out of range");
    }
    for length in [32u64 << 20, bytes.len() as u64, bytes.len() as u64 - 7] {
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        says(&refused(&bytes), "the file is cut short");
    }
    for length in [0u64, 1, 100, bytes.len() as u64 - 8] {
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        refused(&bytes);
    }
}

#[test]
fn newer_files_ask_for_a_newer_penjing() {
    for format in ["5", "4294967295"] {
        let message = refused(&edited(r#""format":1"#, &format!(r#""format":{format}"#)));
        says(
            &message,
            &format!("made by a newer penjing: format {format}, this one reads up to 4; update penjing"),
        );
    }
    // Whatever else a newer version may hold.
    let bytes =
        edited(r#""format":1,"arch":"golden","graph":["#, r#""format":9,"new":{"a":[1]},"graph":[3,"#);
    says(&refused(&bytes), "made by a newer penjing");
    refused(&edited(r#""format":1"#, r#""format":-1"#));
    refused(&edited(r#""format":1"#, r#""format":1e9999"#));
}

#[test]
fn files_of_other_tools_are_named_so() {
    const HINT: &str = "not a penjing model; `penjing weights import` reads weights of other tools";
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    says(&refused(&joined(header, &[0; 4])), HINT);
    says(&refused(&joined(r#"{"__metadata__":{"format":"pt"}}"#, &[])), HINT);
    says(&refused(&joined("{}", &[])), HINT);
    for other in
        [&b""[..], b"PK", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"PK\x03\x04\0\0\x08\x08\0\0\0\0", &[0; 100]]
    {
        says(&refused(other), HINT);
    }
    // Sizes whose sum is beyond any memory.
    let offsets: Vec<u64> = (0..=8).map(|index| index * ((1 << 61) - 1)).collect();
    let huge = |pair: &[u64]| {
        format!(
            r#""{0}":{{"dtype":"U8","shape":[{1}],"data_offsets":[{0},{2}]}}"#,
            pair[0],
            pair[1] - pair[0],
            pair[1]
        )
    };
    let tensors: Vec<String> = offsets.windows(2).map(huge).collect();
    says(&refused(&joined(&format!("{{{}}}", tensors.join(",")), &[])), HINT);
}

#[test]
fn unknown_parts_are_refused() {
    for (from, to, part) in [
        (r#""arch":"golden""#, r#""arch":"golden","colour":1"#, "unknown field `colour`"),
        (r#""eps":0.001"#, r#""eps":0.001,"momentum":1"#, "unknown field `momentum`"),
        (r#""count_include_pad":false"#, r#""count_include_pad":false,"x":1"#, "unknown field `x`"),
        (r#""temperature":1.25"#, r#""temperature":1.25,"threshold":0"#, "unknown field `threshold`"),
        (r#""name":"image","#, r#""name":"image","shape":[1,1,1,1],"#, "unknown field `shape`"),
        (r#""op":"flatten""#, r#""op":"attention""#, "unknown variant `attention`"),
        (r#""act":"silu""#, r#""act":"gelu""#, "unknown variant `gelu`"),
        (r#""op":"concat""#, r#""op":{"concat":{"axis":2}}"#, "expected unit"),
        (r#""filter":"bicubic""#, r#""filter":"lanczos""#, "unknown variant `lanczos`"),
        (r#""decode":"full""#, r#""decode":"half""#, "unknown variant `half`"),
        (r#""arch":"golden","#, "", "missing field `arch`"),
        (
            r#""len":4}},"inputs":[14]},{"name":"left.leaky""#,
            r#""len":-4}},"inputs":[14]},{"name":"left.leaky""#,
            "-4",
        ),
        (r#""rate":0.25"#, r#""rate":1.5"#, "layer `dropout`: the rate is 1.5, expected 0 to 1"),
        (r#""leaky_relu":0.125"#, r#""leaky_relu":1e39"#, "number out of range"),
    ] {
        says(&refused(&edited(from, to)), part);
    }
    let deep = format!(r#""arch":{}"#, "[".repeat(100_000));
    refused(&edited(r#""arch":"golden""#, &deep));
}

#[test]
fn graphs_that_are_none_are_refused() {
    for (from, to, part) in [
        (
            r#""inputs":[8,13]"#,
            r#""inputs":[8,14]"#,
            "layer `gate.mul`: takes the result of layer 14, which is not before",
        ),
        (
            r#""inputs":[8,13]"#,
            r#""inputs":[8,4000000000]"#,
            "layer `gate.mul`: takes the result of layer 4000000000",
        ),
        (r#""inputs":[8,13]"#, r#""inputs":[8]"#, "layer `gate.mul`: takes 2 inputs, got 1"),
        (r#""inputs":[8,13]"#, r#""inputs":[8,5000000000]"#, "the file holds no sound model"),
        (r#""name":"relu""#, r#""name":"none""#, "layer `none`: there are two layers of this name"),
        (
            r#""shape":[1,12,10,3]"#,
            r#""shape":[0,12,10,3]"#,
            "layer `image`: its result would be [0, 12, 10, 3]",
        ),
        (
            r#""shape":[1,12,10,3]"#,
            r#""shape":[1,9223372036854775807,9223372036854775807,3]"#,
            "layer `image`: its result would be",
        ),
        (
            r#""shape":[1,12,10,3]"#,
            r#""shape":[1,12,11,3]"#,
            "the graph takes [1, 12, 11, 3] but the pixels contract",
        ),
        (
            r#""out_features":3"#,
            r#""out_features":18446744073709551615"#,
            "layer `head`: its result would be",
        ),
        (
            r#""out_features":3"#,
            r#""out_features":200000000"#,
            "layer `head.weight`: the weight has shape [3, 72]",
        ),
        (
            r#""padding":[0,1,1,0]"#,
            r#""padding":[18446744073709551615,1,1,0]"#,
            "layer `stem.conv`: padding is out of range",
        ),
        (
            r#""padding":[0,1,1,0]"#,
            r#""padding":[200000000,0,200000000,0]"#,
            "layer `stem.conv`: its result would be",
        ),
    ] {
        says(&refused(&edited(from, to)), part);
    }
    let bytes = golden();
    let (header, data) = parts(&bytes);
    let start = header.find(r#"{\"name\":\"image\""#).unwrap();
    let end = header.find(r#"],\"pixels\""#).unwrap();
    let empty = format!("{}{}", &header[..start], &header[end..]);
    says(&refused(&hashed(joined(&empty, data))), "no layer uses this weight");
}

#[test]
fn weights_that_are_not_the_graphs_are_refused() {
    let bytes = golden();
    let (header, data) = parts(&bytes);
    let rewritten = |from: &str, to: &str, data: &[u8]| {
        assert_eq!(header.matches(from).count(), 1, "{from}");
        refused(&hashed(joined(&header.replace(from, to), data)))
    };
    // The last one, so that the offsets of the others stay.
    let stem = r#","stem.conv.weight":{"dtype":"F16","shape":[8,3,3,3],"data_offsets":[1340,1772]}"#;
    says(&rewritten(stem, "", &data[..1340]), "layer `stem.conv.weight`: this weight is missing");
    let extra = format!(r#"{stem},"ghost":{{"dtype":"F32","shape":[2],"data_offsets":[1772,1780]}}"#);
    says(&rewritten(stem, &extra, &[data, &[0; 8]].concat()), "layer `ghost`: no layer uses this weight");
    says(
        &rewritten("[8,3,3,3]", "[8,3,9,1]", data),
        "layer `stem.conv.weight`: the weight has shape [8, 3, 9, 1], expected [8, 3, 3, 3]",
    );
    says(&rewritten("[8,3,3,3]", "[216]", data), "expected [8, 3, 3, 3]");
    let typed = |dtype: &str, shape: &str| stem.replace("F16", dtype).replace("[8,3,3,3]", shape);
    says(&rewritten(stem, &typed("BF16", "[8,3,3,3]"), data), "weight `stem.conv.weight` has type BF16");
    says(&rewritten(stem, &typed("I64", "[54]"), data), "weight `stem.conv.weight` has type I64");
    says(&rewritten("[8,3,3,3]", "[4611686018427387904,4611686018427387904]", data), "damaged");
}

#[test]
fn models_that_do_not_fit_together_are_not_written() {
    says(&unwritable(|m| m.labels.push("cherry".into())), "the graph gives [1, 1, 1, 3] for 4 labels");
    says(&unwritable(|m| m.labels.clear()), "the graph gives [1, 1, 1, 3] for 0 labels");
    says(
        &unwritable(|m| m.pixels.height = 13),
        "the graph takes [1, 12, 10, 3] but the pixels contract makes",
    );
    says(&unwritable(|m| m.pixels.std[1] = 0.0), "pixels.std holds 0; it must be finite and above 0");
    for temperature in [0.0, -0.0, -1.0, f32::NAN, f32::INFINITY] {
        says(&unwritable(|m| m.calibration.temperature = temperature), "expected a positive number");
    }
    says(&unwritable(|m| m.provenance.val_top1 = Some(f64::NAN)), "val_top1 is NaN, expected 0 to 1");
    says(&unwritable(|m| drop(m.weights.remove("head.bias"))), "layer `head.bias`: this weight is missing");
    says(&unwritable(|m| m.graph = Graph::default()), "no layer uses this weight");
    let hollow = |m: &mut Model| {
        let tensor = Tensor { shape: vec![8, 3, 3, 3], data: Data::F32(vec![0.0; 5]) };
        m.weights.insert("stem.conv.weight".into(), tensor);
    };
    says(&unwritable(hollow), "layer `stem.conv.weight`");
    let batch = |m: &mut Model| m.graph = m.graph.with_input([2, 12, 10, 3]).unwrap();
    says(&unwritable(batch), "the graph takes [2, 12, 10, 3]");
    // And the same in a file.
    says(&refused(&edited(r#""temperature":1.25"#, r#""temperature":0.0"#)), "the temperature is 0");
    says(&refused(&edited(r#""temperature":1.25"#, r#""temperature":null"#)), "no sound model");
    says(&refused(&edited(r#""labels":["ash","#, r#""labels":["#)), "for 2 labels");
    says(&refused(&edited(r#""height":12"#, r#""height":999999999999"#)), "pixels.height is 999999999999");
}

/// The golden model with convolutions of integers, and results kept in 8 bits.
fn in_8_bits() -> Model {
    let mut model = model();
    let ids: Vec<_> = model.graph.iter().map(|(id, node)| (id, node.name.clone(), node.op.clone())).collect();
    for (id, name, op) in ids {
        if let Op::Conv(_) | Op::Linear { .. } = op {
            let weight = model.weights.get_mut(&format!("{name}.weight")).unwrap();
            *weight = weight.to_i8();
        }
        if let Op::Input { .. } | Op::Act(_) | Op::Add = op {
            model.graph.set_quant(id, Some(Quant::over(-2.0, 3.5))).unwrap();
        }
    }
    model
}

#[test]
fn integers_are_written_and_read_as_version_2() {
    let model = in_8_bits();
    let bytes = model.to_bytes().unwrap();
    let (header, _) = parts(&bytes);
    assert!(header.contains(r#"\"format\":2,"#), "{header}");
    assert!(Model::from_bytes(&bytes).unwrap() == model);
    assert!(model.clone().to_half() == model, "integers stay as they are");
    // Any safetensors reader sees integers, and their scales beside them.
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let [weight, scale] = ["head.weight", "head.weight.scale"].map(|name| tensors.tensor(name).unwrap());
    assert_eq!((weight.dtype(), scale.dtype()), (Dtype::I8, Dtype::F32));
    assert_eq!(scale.shape(), [weight.shape()[0]]);
    // It is another network, near to the one of floats.
    let logits = |model: &Model| {
        let plan = PlanBuf::lower(&model.graph, &model.weights, 1).unwrap();
        let mut session = Session::new(plan.into(), Isa::detect());
        session.input().copy_from_slice(&noise(1, 12 * 10 * 3));
        session.run(&Serial).to_vec()
    };
    let off =
        logits(&model).iter().zip(logits(&self::model())).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off > 0.0 && off < 0.2, "{off}");
}

#[test]
fn integers_without_sound_scales_are_refused() {
    let bytes = in_8_bits().to_bytes().unwrap();
    let with = |from: &str, to: &str| {
        let (header, data) = parts(&bytes);
        assert!(header.contains(from), "{from}");
        refused(&hashed(joined(&header.replacen(from, to, 1), data)))
    };
    says(
        &with(r#""head.weight.scale":"#, r#""head.weight.sca1e":"#),
        "`head.weight` has integers without scales",
    );
    says(&with(r#"{\"scale\":"#, r#"{\"scale\":-"#), "the scale of its result is -0.0");
    says(&with(r#"\"zero_point\":93"#, r#"\"zero_point\":256"#), "no sound model");
    for (scale, what) in [(0f32, "0"), (f32::NAN, "NaN"), (-1.0, "-1")] {
        let mut bytes = bytes.clone();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let view = tensors.tensor("head.weight.scale").unwrap();
        let place = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        bytes[place..place + 4].copy_from_slice(&scale.to_le_bytes());
        says(&refused(&hashed(bytes)), &format!("`head.weight` has the scale {what}, expected"));
    }
    let mut bytes = bytes.clone();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let place = tensors.tensor("head.weight").unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[place] = i8::MIN as u8;
    says(&refused(&hashed(bytes)), "does not fit its 8-bit integers of -127 to 127");
}

/// The golden model with as many weights in 4 bits as can be.
fn in_4_bits() -> Model {
    let mut model = model();
    for tensor in model.weights.values_mut().filter(|tensor| tensor.shape.len() > 1) {
        *tensor = match Nibbles::fit(&tensor.shape) {
            true => Tensor { data: Data::I4(four(tensor)), shape: tensor.shape.clone() },
            false => tensor.to_i8(),
        };
    }
    model
}

fn four(tensor: &Tensor) -> Nibbles {
    Nibbles::of(&tensor.to_f32(), tensor.shape[1..].iter().product())
}

#[test]
fn nibbles_are_written_and_read_as_version_3() {
    let model = in_4_bits();
    let bytes = model.to_bytes().unwrap();
    let (header, _) = parts(&bytes);
    assert!(header.contains(r#"\"format\":3,"#), "{header}");
    assert!(Model::from_bytes(&bytes).unwrap() == model);
    assert!(model.clone().to_half() == model, "integers stay as they are");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of = |name: &str| tensors.tensor(name).unwrap();
    let [weight, scale] = [of("head.weight"), of("head.weight.scale")];
    let [outputs, inner] = model.weights["head.weight"].shape[..] else { panic!("a linear layer") };
    assert_eq!((weight.dtype(), weight.shape()), (Dtype::U8, &[outputs, inner / 2][..]));
    assert_eq!((scale.dtype(), scale.shape()), (Dtype::F16, &[outputs * inner.div_ceil(32)][..]));
    // Three colours do not go into whole bytes.
    assert_eq!(of("stem.conv.weight").dtype(), Dtype::I8);
    // Nor is such a weight written that does not fit them, or its scales.
    let spoilt = |name: &str, spoil: &dyn Fn(&mut Nibbles)| {
        unwritable(|m| {
            let tensor = m.weights.get_mut(name).unwrap();
            let mut nibbles = four(tensor);
            spoil(&mut nibbles);
            tensor.data = Data::I4(nibbles);
        })
    };
    says(&spoilt("stem.conv.weight", &|_| ()), "`stem.conv.weight` of shape [8, 3, 3, 3] does not fit");
    says(&spoilt("head.weight", &|four| _ = four.scales.pop()), "`head.weight` of shape");
}

#[test]
fn nibbles_without_sound_scales_are_refused() {
    let bytes = in_4_bits().to_bytes().unwrap();
    let (header, data) = parts(&bytes);
    let lost = header.replacen(r#""head.weight.scale":"#, r#""head.weight.sca1e":"#, 1);
    says(&refused(&hashed(joined(&lost, data))), "`head.weight` has integers without scales");
    let place = |name: &str| {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor(name).unwrap().data().as_ptr().addr() - bytes.as_ptr().addr()
    };
    for (scale, what) in [(0f32, "0"), (f32::NAN, "NaN"), (-1.0, "-1"), (f32::INFINITY, "inf")] {
        let (mut bytes, place) = (bytes.clone(), place("head.weight.scale"));
        bytes[place..place + 2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
        says(&refused(&hashed(bytes)), &format!("`head.weight` has the scale {what}, expected"));
    }
    // As many bytes in another shape have another number of scales, or none.
    let [outputs, inner] = model().weights["head.weight"].shape[..] else { panic!("a linear layer") };
    let stands = format!(r#""dtype":"U8","shape":[{outputs},{}]"#, inner / 2);
    let bytes = outputs * inner / 2;
    for (shape, what) in
        [(format!("[{bytes}]"), "cannot be in 4 bits"), (format!("[1,{bytes}]"), "in 4 bits has")]
    {
        assert!(header.contains(&stands), "{header}");
        let changed = header.replacen(&stands, &format!(r#""dtype":"U8","shape":{shape}"#), 1);
        let message = refused(&hashed(joined(&changed, data)));
        says(&message, "`head.weight` of shape");
        says(&message, what);
    }
}

/// The golden model, every third weight of its head kept.
fn with_zeros() -> Model {
    let mut model = model();
    let head = model.weights.get_mut("head.weight").unwrap();
    let kept = |(at, value)| if at % 3 == 0 { value } else { 0.0 };
    let values = head.to_f32().into_iter().enumerate().map(kept).collect();
    *head = Tensor::f32(&head.shape, values).to_sparse().unwrap();
    model
}

#[test]
fn weights_without_their_zeros_are_written_and_read_as_version_4() {
    let model = with_zeros();
    let bytes = model.to_bytes().unwrap();
    let (header, _) = parts(&bytes);
    assert!(header.contains(r#"\"format\":4,"#) && FORMAT == 4, "{header}");
    let read = Model::from_bytes(&bytes).unwrap();
    assert!(read == model);
    assert!(model.clone().to_half() == model && model.clone().to_floats() != model);
    let values = read.weights["head.weight"].to_f32();
    assert_eq!(values.iter().filter(|value| **value != 0.0).count(), values.len().div_ceil(3));
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of = |name: &str| tensors.tensor(name).unwrap();
    let [outputs, inner] = model.weights["head.weight"].shape[..] else { panic!("a linear layer") };
    assert_eq!(
        (of("head.weight").dtype(), of("head.weight").shape()),
        (Dtype::U8, &[outputs, inner / 8][..])
    );
    assert_eq!(of("head.weight.values").shape(), &[values.len().div_ceil(3)][..]);
    // Three colours do not go into whole bytes.
    assert!(model.weights["stem.conv.weight"].to_sparse().is_none());
    let spoilt = unwritable(|m| {
        let tensor = m.weights.get_mut("head.weight").unwrap();
        let Data::Sparse(mut sparse) = tensor.to_sparse().unwrap().data else { panic!() };
        sparse.values.pop();
        tensor.data = Data::Sparse(sparse);
    });
    says(&spoilt, "`head.weight` of shape");
}

#[test]
fn another_number_of_values_than_is_said_is_refused() {
    let bytes = with_zeros().to_bytes().unwrap();
    let (header, data) = parts(&bytes);
    let place = {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        tensors.tensor("head.weight").unwrap().data().as_ptr().addr() - bytes.as_ptr().addr()
    };
    let mut more = bytes.clone();
    more[place] = !more[place];
    says(&refused(&hashed(more)), "another number than it says");
    let [outputs, inner] = model().weights["head.weight"].shape[..] else { panic!("a linear layer") };
    let stands = format!(r#""dtype":"U8","shape":[{outputs},{}]"#, inner / 8);
    let flat = format!(r#""dtype":"U8","shape":[{}]"#, outputs * inner / 8);
    assert!(header.contains(&stands), "{header}");
    says(&refused(&hashed(joined(&header.replacen(&stands, &flat, 1), data))), "`head.weight` of shape");
    // As integers it has no scales; of another type they are none of its values.
    let lost = header.replacen(r#""head.weight.values":"#, r#""head.weight.va1ues":"#, 1);
    says(&refused(&hashed(joined(&lost, data))), "`head.weight` has integers without scales");
}

#[test]
fn half_precision_spares_what_batch_norm_needs() {
    let model = model();
    for (name, tensor) in &model.weights {
        let half = matches!(tensor.data, Data::F16(_));
        assert_eq!(half, name.ends_with(".weight"), "{name}");
    }
    // No slope, rate or eps that the file could not hold ever gets into a graph.
    let mut graph = model.graph.clone();
    let last = graph.output().unwrap();
    let bad = graph.push("bad", Op::Act(Act::LeakyRelu(f32::NAN)), &[last]);
    assert!(matches!(bad, Err(Error::Layer { layer, .. }) if layer == "bad"));
}
