//! `penjing eval`.

use std::{fmt::Write as _, path::PathBuf};

use penjing::{
    classifier::Classifier,
    data::{Dataset, Part, Sample, split::content_hash},
    eval::{Evaluation, evaluate},
    model,
    transfer::survey::fingerprint,
};

use super::{Outcome, ThreadsArg, say_skipped};
use crate::console::Console;

/// Say how good a model is, on photos that it has not seen
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// A folder with one sub-folder per class, train/val/test of those (test is used, else val), or a CSV
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    threads: ThreadsArg,
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    let threads = args.threads.start()?;
    let model = model::load(&args.model)?;
    let data = Dataset::open(&args.data, None)?;
    for notice in &data.notices {
        console.say(&notice.to_string());
    }
    // Data without parts is all one part; else what was held back most is what tells most.
    let parts = [(Part::Test, "test"), (Part::Val, "val"), (Part::Train, "train")];
    let there = parts.into_iter().find(|(part, _)| data.part(*part).next().is_some());
    let (part, name) = there.unwrap_or((Part::Train, "train"));
    let samples: Vec<&Sample> = data.part(part).map(|(_, sample)| sample).collect();
    let evaluation = evaluate(&Classifier::new(&model)?, &data, samples.iter().copied(), &threads, console)?;
    say_skipped(&evaluation.skipped, console);
    if part == Part::Train && learnt(&model, &data, &samples) {
        console.say("these are the photos that the model has learnt from: on others it will do worse");
    }
    let report = Report { part: name, evaluation: &evaluation };
    console.result(&report, || describe(&evaluation))?;
    Ok(Outcome::Done)
}

#[derive(serde::Serialize)]
struct Report<'a> {
    /// The part of the data that was judged; data without parts is called train.
    part: &'static str,
    #[serde(flatten)]
    evaluation: &'a Evaluation,
}

/// Whether the model learnt from just these photos.
fn learnt(model: &model::Model, data: &Dataset, samples: &[&Sample]) -> bool {
    let hash = |sample: &&'_ Sample| content_hash(&sample.path).ok();
    let hashes: Option<Vec<[u8; 32]>> = samples.iter().map(hash).collect();
    let Some(hashes) = hashes else { return false };
    let found = fingerprint(data, samples.iter().copied().zip(&hashes));
    model.provenance.data_hash.as_ref() == Some(&found)
}

/// Overall figures, then a line a class, the weakest first, with what it is taken for.
fn describe(evaluation: &Evaluation) -> String {
    let mut text = format!(
        "top-1 {:.2} % ± {:.2}   top-5 {:.2} %   {} photos",
        100.0 * evaluation.top1,
        100.0 * evaluation.top1_se,
        100.0 * evaluation.top5,
        evaluation.n
    );
    if !evaluation.skipped.is_empty() {
        let _ = write!(text, ", {} skipped", evaluation.skipped.len());
    }
    text.push('\n');
    let mut classes: Vec<usize> =
        (0..evaluation.per_class.len()).filter(|&class| evaluation.per_class[class].n > 0).collect();
    let recall = |class: usize| evaluation.per_class[class].recall.unwrap_or(1.0);
    classes.sort_by(|&a, &b| recall(a).total_cmp(&recall(b)));
    let width =
        classes.iter().map(|&class| evaluation.per_class[class].label.chars().count()).max().unwrap_or(0);
    let _ = writeln!(text, "\n{:width$}  photos  recall  precision  mostly taken for", "class");
    for class in classes {
        let score = &evaluation.per_class[class];
        let percent =
            |share: Option<f64>| share.map_or("–".into(), |share| format!("{:.1} %", 100.0 * share));
        let row = &evaluation.confusion[class];
        let confused =
            (0..row.len()).filter(|&other| other != class && row[other] > 0).max_by_key(|&c| row[c]);
        let confused = confused
            .map_or(String::new(), |other| format!("{} ({})", evaluation.per_class[other].label, row[other]));
        let line = format!(
            "{:width$}  {:6}  {:>7} {:>9}   {confused}",
            score.label,
            score.n,
            percent(score.recall),
            percent(score.precision)
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
