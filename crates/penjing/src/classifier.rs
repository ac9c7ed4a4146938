//! A model at work: photos in, labels out.

use penjing_runtime::{
    file::Model,
    pixels::{Rgb, View},
};

use crate::{Result, runner::Runner};

/// A model ready to name what photos show.
#[derive(Debug)]
pub struct Classifier {
    runner: Runner,
    labels: Vec<String>,
    temperature: f32,
}

/// One guess.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Guess {
    /// Class name.
    pub label: String,
    /// Calibrated probability, 0..1.
    pub p: f32,
}

impl Classifier {
    /// Makes the model ready to run.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) when it cannot be lowered.
    pub fn new(model: &Model) -> Result<Self> {
        Ok(Classifier {
            runner: Runner::new(&model.graph, &model.weights, &model.pixels, 1)?,
            labels: model.labels.clone(),
            temperature: model.calibration.temperature,
        })
    }

    /// Class names, in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The network's raw scores, one for each label.
    pub fn logits(&self, photo: Rgb<'_>) -> Vec<f32> {
        self.runner.run(photo, View::PLAIN)
    }

    /// The `top` likeliest classes, the likeliest first.
    pub fn classify(&self, photo: Rgb<'_>, top: usize) -> Vec<Guess> {
        let logits = self.logits(photo);
        let scaled: Vec<f32> = logits.iter().map(|z| z / self.temperature).collect();
        let mut p = vec![0.0; scaled.len()];
        penjing_kernels::softmax::run(1, scaled.len(), &scaled, &mut p);
        let guess = |class: usize| Guess { label: self.labels[class].clone(), p: p[class] };
        ranked(&logits).into_iter().take(top).map(guess).collect()
    }
}

/// Classes from the greatest logit to the smallest; of equals the first comes first.
pub fn ranked(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order
}
