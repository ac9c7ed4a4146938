//! A network that learns from a teacher, on a few photos.

use std::{path::Path, sync::atomic::AtomicUsize, sync::atomic::Ordering};

use penjing::{
    model,
    progress::{Progress, Quiet},
    threads::Threads,
    train::{
        augment::Augment,
        checkpoint::Tensors,
        distill::{Distill, Soft},
        feed::{Draw, Feed, Photo},
        mix::Mix,
        optimizer::{Rates, Rule},
        parameters::Parameters,
        tape::Statistics,
        teacher::Teacher,
        trainer::{Job, Recipe, Standing, Trained, Watch, train},
    },
    transfer::adapt::{Input, adapt},
    zoo::{Arch, Config, fresh_weights},
};
use penjing_runtime::{
    file::Model,
    graph::Graph,
    pixels::{Color, Pixels},
};

/// Photos of an epoch, two of which make a step.
const PHOTOS: [&str; 4] = ["lossy.webp", "palette.png", "still.gif", "palette.bmp"];
const CLASSES: usize = 3;
const KD: Distill = Distill { soft: Soft::Kd { temperature: 4.0, share: 0.9 }, hints: 0.0 };
const DKD: Distill = Distill { soft: Soft::Dkd { temperature: 4.0, beta: 8.0, warmup: 0.2 }, hints: 0.0 };
const HINTS: Distill = Distill { hints: 0.5, ..KD };

fn photos(class: impl Fn(u32) -> Option<u32>) -> Vec<Photo> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/photos");
    let photo = |(i, name): (u32, &&str)| Photo { path: folder.join(name), class: class(i), key: i.into() };
    (0..).zip(&PHOTOS).map(photo).collect()
}

/// The bundled network, at a size that is not the student's.
fn master() -> Model {
    adapt(&model::bundled().unwrap(), &Input { size: Some(64), ..Input::default() }).unwrap()
}

/// Three of its classes.
fn classes(model: &Model) -> Vec<String> {
    [281, 7, 999].map(|class| model.labels[class].clone()).to_vec()
}

fn student() -> (Graph, Pixels) {
    let (arch, width) = Arch::named("mobilenet_v2_x0.35").unwrap();
    let config = Config { width, size: 32, ..arch.config(CLASSES) };
    (arch.graph(&config).unwrap(), arch.pixels(&config))
}

fn recipe(distill: Option<Distill>) -> Recipe {
    let rate = 2e-3;
    Recipe {
        epochs: 3.0,
        batch: 2,
        at_once: 2,
        size: 32,
        early: None,
        rule: Rule::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
        decay: 0.01,
        clip: Some(1.0),
        rates: Rates { head: rate, last: rate, middle: rate, first: rate },
        warmup: 0.0,
        floor: 0.01,
        smoothing: 0.0,
        augment: Augment::recommended(100.0),
        mix: Mix { mixup: 0.0, cutmix: 0.0 },
        balance: 0.0,
        statistics: Statistics::Batch,
        momentum: 0.1,
        first: 0,
        half_life: 0.1,
        frugal: false,
        distill,
    }
}

type State = (Standing, Tensors<'static>);

struct Lesson {
    recipe: Recipe,
    learn: Vec<Photo>,
    teacher: Option<Teacher>,
}

impl Lesson {
    fn new(distill: Distill) -> Self {
        let model = master();
        let teacher = Teacher::new(&model, &classes(&model), distill.hints > 0.0).unwrap();
        Lesson { recipe: recipe(Some(distill)), learn: photos(|i| Some(i % 3)), teacher: Some(teacher) }
    }

    fn run(
        &self,
        threads: usize,
        progress: &dyn Progress,
        from: Option<State>,
    ) -> penjing::Result<(Trained, Vec<State>)> {
        let (graph, pixels) = student();
        let job = Job {
            name: "training",
            graph: &graph,
            pixels: &pixels,
            learn: self.learn.clone(),
            judge: photos(|i| Some(i % 3)),
            classes: CLASSES,
            recipe: &self.recipe,
            teacher: self.teacher.as_ref(),
            projection: None,
            seed: 0,
            memory: 1 << 30,
        };
        let start = Parameters::new(&graph, &fresh_weights(&graph, 0)).unwrap();
        let mut kept = Vec::new();
        let mut keep = |standing: &Standing, tensors: Tensors<'_>| {
            let tensors = tensors.into_iter().map(|(name, values)| (name, values.into_owned().into()));
            kept.push((standing.clone(), tensors.collect()));
            Ok(())
        };
        let mut watch = Watch { progress, log: None, keep: &mut keep };
        let trained = train(&job, start, from, &Threads::new(Some(threads)).unwrap(), &mut watch)?;
        Ok((trained, kept))
    }
}

/// A user who has enough after so many photos.
struct Enough(AtomicUsize);

impl Progress for Enough {
    fn advance(&self, photos: usize) {
        let less = |left: usize| Some(left.saturating_sub(photos));
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[test]
fn threads_and_interrupts_change_no_bit_and_the_network_stays_its_own() {
    let (graph, _) = student();
    let mut ends = Vec::new();
    for distill in [KD, DKD, HINTS] {
        let lesson = Lesson::new(distill);
        let (whole, _) = lesson.run(1, &Quiet, None).unwrap();
        let names = |network: &Parameters| network.list.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        let own: Vec<String> = graph.parameters().into_iter().map(|(name, _)| name).collect();
        let (_, best) = whole.best.as_ref().unwrap();
        assert!([&whole.last, &whole.average, best].map(names) == [own.clone(), own.clone(), own]);
        for threads in [2, 5] {
            let (other, _) = lesson.run(threads, &Quiet, None).unwrap();
            assert!(other.last == whole.last && other.average == whole.average, "{distill:?}, {threads}");
        }
        // While there are hints, when they end, and after.
        for steps in [1, 3, 5] {
            let (cut, mut kept) = lesson.run(2, &Enough(AtomicUsize::new(2 * steps)), None).unwrap();
            assert!(cut.interrupted);
            let (again, _) = lesson.run(2, &Quiet, kept.pop()).unwrap();
            assert!(again.last == whole.last && again.best == whole.best, "{distill:?} after {steps} steps");
        }
        ends.push(whole.last);
    }
    let (plain, _) = Lesson { recipe: recipe(None), ..Lesson::new(KD) }.run(1, &Quiet, None).unwrap();
    ends.push(plain.last);
    for (at, end) in ends.iter().enumerate() {
        assert!(ends[..at].iter().all(|other| other != end), "what is said of the teacher changes nothing");
    }
}

#[test]
fn a_student_without_labels_comes_to_say_what_its_teacher_says() {
    for distill in [KD, DKD] {
        let mut lesson = Lesson::new(distill);
        lesson.learn = photos(|_| None);
        // All photos in each step: two at a time, each pair's statistics would make other networks.
        let all = PHOTOS.len();
        let recipe = lesson.recipe;
        lesson.recipe = Recipe { epochs: 40.0, batch: all, at_once: all, augment: Augment::NONE, ..recipe };
        let (trained, _) = lesson.run(2, &Quiet, None).unwrap();
        let losses: Vec<f64> = trained.history.iter().map(|epoch| epoch.loss).collect();
        // Batches of four, and dropout, make them restless; the decoupled loss rises at first as its weight does.
        let greatest = losses.iter().copied().fold(0.0, f64::max);
        let last = losses[30..].iter().sum::<f64>() / 10.0;
        assert!(last < 0.2 * greatest, "{distill:?}: {losses:?}");
    }
}

#[test]
fn the_teacher_sees_the_looks_of_the_student() {
    let model = master();
    let teacher = Teacher::new(&model, &classes(&model), false).unwrap();
    let (_, pixels) = student();
    let augment = Augment { operations: 1, magnitude: 5, ..Augment::recommended(100.0) };
    let feed = |pixels: &Pixels| Feed::new(photos(|_| None), CLASSES, pixels.clone(), augment, 0.0, 7, 0);
    let draws: Vec<Draw> = (0..8).map(|i| Draw { photo: i % 4, time: i / 4 }).collect();
    // The file is decoded for the student, and both sizes see the whole of these small photos.
    let mut seen = vec![0.0; 8 * model.pixels.len()];
    feed(&model.pixels).fill(&model.pixels, 3, &draws, &mut seen, None).unwrap();
    let mut expected = vec![0.0; 8 * CLASSES];
    for (input, answer) in seen.chunks_exact(model.pixels.len()).zip(expected.chunks_exact_mut(CLASSES)) {
        teacher.answer(input, answer);
    }
    let gray = Pixels { color: Color::Gray, ..pixels.clone() };
    for pixels in [&model.pixels, &pixels, &gray] {
        let (mut inputs, mut answers) = (vec![0.0; 8 * pixels.len()], vec![f32::NAN; 8 * CLASSES]);
        feed(pixels).fill(pixels, 3, &draws, &mut inputs, Some((&teacher, &mut answers))).unwrap();
        assert_eq!(answers, expected, "{pixels:?}");
        let mut alone = vec![0.0; inputs.len()];
        feed(pixels).fill(pixels, 3, &draws, &mut alone, None).unwrap();
        assert_eq!(inputs, alone, "the teacher changes what the student sees");
    }
    assert_ne!(expected[..12], expected[12..], "every look is the same");
}

#[test]
fn what_cannot_be_taught_is_refused() {
    let refused = |lesson: Lesson, words: &str| {
        let error = lesson.run(1, &Quiet, None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(Lesson { teacher: None, ..Lesson::new(KD) }, "there is no teacher");
    refused(
        Lesson { recipe: recipe(Some(HINTS)), ..Lesson::new(KD) },
        "hints need a teacher that tells its features",
    );
    refused(
        Lesson { recipe: recipe(None), learn: photos(|_| None), ..Lesson::new(KD) },
        "without a label teach nothing",
    );
    let mix = Mix { mixup: 0.2, cutmix: 0.0 };
    refused(Lesson { recipe: Recipe { mix, ..recipe(Some(KD)) }, ..Lesson::new(KD) }, "not blended");
}
