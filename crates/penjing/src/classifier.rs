//! A model at work: photos in, labels out.

use penjing_runtime::{
    file::Model,
    pixels::{Pixels, Rgb, View},
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

    /// The contract that photos are decoded and seen under.
    pub fn pixels(&self) -> &Pixels {
        self.runner.pixels()
    }

    /// The network's raw scores, one for each label.
    pub fn logits(&self, photo: Rgb<'_>) -> Vec<f32> {
        self.runner.run(photo, View::PLAIN)
    }

    /// The `top` likeliest classes, the likeliest first.
    pub fn classify(&self, photo: Rgb<'_>, top: usize) -> Vec<Guess> {
        let logits = self.logits(photo);
        self.guesses(&ranked(&logits), &self.probabilities(&logits), top)
    }

    /// As [`classify`](Self::classify), of a frame and those before it.
    pub fn classify_frame(&self, photo: Rgb<'_>, smoothing: &mut Smoothing, top: usize) -> Vec<Guess> {
        let p = smoothing.update(self.probabilities(&self.logits(photo)));
        self.guesses(&ranked(p), p, top)
    }

    /// Calibrated: the softmax of the logits over the temperature.
    fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        let scaled: Vec<f32> = logits.iter().map(|z| z / self.temperature).collect();
        let mut p = vec![0.0; scaled.len()];
        penjing_kernels::softmax::run(1, scaled.len(), &scaled, &mut p);
        p
    }

    fn guesses(&self, order: &[usize], p: &[f32], top: usize) -> Vec<Guess> {
        let guess = |&class: &usize| Guess { label: self.labels[class].clone(), p: p[class] };
        order.iter().take(top).map(guess).collect()
    }
}

/// An exponential moving average of probabilities over the frames of a stream: one odd frame changes no answer.
#[derive(Clone, Debug)]
pub struct Smoothing {
    /// What a new frame counts.
    share: f32,
    mean: Vec<f32>,
}

impl Smoothing {
    /// Over about so many frames: a new one counts 2 / (frames + 1), all of it if that is 1.
    pub fn over(frames: u16) -> Self {
        Smoothing { share: 2.0 / (f32::from(frames.max(1)) + 1.0), mean: Vec::new() }
    }

    /// The mean with one more frame.
    fn update(&mut self, p: Vec<f32>) -> &[f32] {
        if self.mean.is_empty() {
            self.mean = p;
        } else {
            self.mean.iter_mut().zip(p).for_each(|(mean, p)| *mean += self.share * (p - *mean));
        }
        &self.mean
    }
}

/// Classes from the greatest logit to the smallest; of equals the first comes first.
pub fn ranked(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model,
        transfer::adapt::{Input, adapt},
    };

    #[test]
    fn probabilities_are_the_softmax_of_logits_over_the_temperature() {
        let input = Input { size: Some(32), ..Input::default() };
        let mut model = adapt(&model::bundled().unwrap(), &input).unwrap();
        model.calibration.temperature = 2.5;
        let data: Vec<u8> = (0..40 * 40 * 3).map(|i| (i * 7919 % 251) as u8).collect();
        let photo = Rgb { width: 40, height: 40, data: &data };
        let classifier = Classifier::new(&model).unwrap();
        let scores: Vec<f64> = classifier.logits(photo).iter().map(|z| (f64::from(*z) / 2.5).exp()).collect();
        let total: f64 = scores.iter().sum();
        let guesses = classifier.classify(photo, 5);
        assert_eq!(guesses.len(), 5);
        assert!(guesses.is_sorted_by(|a, b| a.p >= b.p));
        for Guess { label, p } in guesses {
            let class = model.labels.iter().position(|of_model| *of_model == label).unwrap();
            let expected = scores[class] / total;
            assert!((f64::from(p) - expected).abs() < 1e-5 * expected, "{label}: {p}, expected {expected}");
        }
    }

    #[test]
    fn one_odd_frame_among_many_changes_no_answer() {
        let mut smoothing = Smoothing::over(3);
        assert_eq!(smoothing.update(vec![1.0, 0.0]), [1.0, 0.0]);
        assert_eq!(smoothing.update(vec![0.0, 1.0]), [0.5, 0.5]);
        assert_eq!(smoothing.update(vec![1.0, 0.0]), [0.75, 0.25]);
        let mut none = Smoothing::over(1);
        none.update(vec![1.0, 0.0]);
        assert_eq!(none.update(vec![0.25, 0.75]), [0.25, 0.75]);
    }
}
