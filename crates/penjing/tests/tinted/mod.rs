//! Photos whose tint tells their class, networks that learn them, and a user who has enough.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use penjing::{
    data::{
        Dataset, Part,
        decode::{self, Limits},
    },
    progress::Progress,
    train::{
        learner::{Learner, Method},
        optimizer::{Rates, Rule},
        parameters::Parameters,
        tape::{Policy, Statistics},
    },
    zoo,
};
use penjing_runtime::{
    file::{Calibration, Model, Provenance},
    graph::Graph,
    op::{Conv, Op},
    pixels::{Color, DecodeRule, Filter, Fit, Pixels, View},
};

use crate::split_mix::split_mix;

/// Values in 0..1, as the script draws them.
pub fn uniform(seed: u64) -> impl FnMut() -> f32 {
    let mut next = split_mix(seed);
    move || (next() >> 40) as f32 / (1u64 << 24) as f32
}

pub fn conv(out: usize, kernel: usize, stride: usize, groups: usize) -> Op {
    Op::Conv(Conv { groups, bias: true, padding: [kernel / 2; 4], ..Conv::new(out, kernel, stride) })
}

pub const CLASSES: [&str; 4] = ["a", "b", "c", "d"];

/// Photos of noise with a tint, hardly seen, that tells the class.
pub fn photos(folder: &Path) -> Dataset {
    for (part, count) in [("train", 16), ("val", 24)] {
        for (class, name) in CLASSES.iter().enumerate() {
            let folder = folder.join(part).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let mut random = uniform(((class * 2 + usize::from(part == "val")) * 100 + number) as u64);
                let tint = [[3.0, -3.0, 0.0], [-3.0, 3.0, 0.0], [0.0, 3.0, -3.0], [0.0, -3.0, 3.0]][class];
                let image = image::RgbImage::from_fn(16, 16, |_, _| {
                    image::Rgb(tint.map(|tint| (128.0 + tint + 80.0 * (random() - 0.5)) as u8))
                });
                image.save(folder.join(format!("{number}.png"))).unwrap();
            }
        }
    }
    Dataset::open(folder, None).unwrap()
}

/// The model of a network for inputs of 16 × 16 pixels that has learnt the photos.
pub fn learnt(graph: Graph, data: &Dataset) -> Model {
    let pixels = Pixels {
        decode: DecodeRule::Full,
        fit: Fit::Squash,
        filter: Filter::Bilinear,
        height: 16,
        width: 16,
        color: Color::Rgb,
        mean: [128.0; 3],
        std: [40.0; 3],
    };
    let mut inputs = Vec::new();
    let mut targets = Vec::new();
    for (_, sample) in data.part(Part::Train) {
        let photo = decode::read_for(&sample.path, &Limits::default(), &pixels).unwrap();
        let at = inputs.len();
        inputs.resize(at + pixels.len(), 0.0);
        pixels.tensor(photo.view(), View::PLAIN, &mut inputs[at..]);
        targets.extend((0..4).map(|class| f32::from(u8::from(class == sample.class))));
    }
    let start = Parameters::new(&graph, &zoo::fresh_weights(&graph, 1)).unwrap();
    let method = Method {
        rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        decay: 0.0,
        clip: None,
        rates: Rates { head: 1e-2, last: 1e-2, middle: 1e-2, first: 1e-2 },
        policy: Policy::whole(Statistics::Frozen),
        momentum: 0.0,
    };
    let batched = graph.with_input([64, 16, 16, 3]).unwrap();
    let mut learner = Learner::new(&batched, start, &method).unwrap();
    (0..150).for_each(|step| _ = learner.step(&inputs, &targets, step, 1.0));
    Model {
        arch: "small".into(),
        graph,
        weights: learner.parameters.to_weights(),
        pixels,
        labels: CLASSES.map(String::from).to_vec(),
        calibration: Calibration { temperature: 1.0 },
        provenance: Provenance::default(),
    }
}

/// The same network for photos twice as high as they are wide.
pub fn oblong(model: &Model) -> Model {
    let mut model = model.clone();
    let [n, h, w, c] = model.graph.input_shape().unwrap();
    model.graph = model.graph.with_input([n, 2 * h, w, c]).unwrap();
    model.pixels.height *= 2;
    model
}

/// A user who has enough after so many photos of a phase.
pub struct Enough {
    left: AtomicUsize,
    of: &'static str,
    phase: Mutex<String>,
}

impl Enough {
    pub fn after(photos: usize, of: &'static str) -> Self {
        Enough { left: AtomicUsize::new(photos), of, phase: Mutex::default() }
    }
}

impl Progress for Enough {
    fn begin(&self, phase: &str, _items: usize) {
        *self.phase.lock().unwrap() = phase.into();
    }

    fn advance(&self, items: usize) {
        if *self.phase.lock().unwrap() == self.of {
            let less = |left: usize| Some(left.saturating_sub(items));
            _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    fn cancelled(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}
