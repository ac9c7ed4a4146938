//! A finished classifier that teaches another network.

use penjing_kernels::Serial;
use penjing_runtime::{file::Model, op::Op, pixels::Pixels};

use super::distill;
use crate::{Error, Result, data::shortened, runner::Runner};

/// A classifier at work for a student: it sees the student's looks at photos, made its own way (size, colours, normalization),
/// and answers with logits of the student's classes, and where hints are wanted with its features.
#[derive(Debug)]
pub struct Teacher {
    runner: Runner,
    /// For each of the student's classes its place among the teacher's.
    places: Vec<usize>,
    /// Number of the teacher's classes.
    classes: usize,
    features: usize,
}

impl Teacher {
    /// A teacher of `classes`, which may know others too; those do not count.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the classes it does not know, or when it cannot be run.
    pub fn new(model: &Model, classes: &[String], hints: bool) -> Result<Teacher> {
        let place = |class: &String| model.labels.iter().position(|label| label == class);
        let places: Vec<Option<usize>> = classes.iter().map(place).collect();
        let unknown: Vec<String> = (classes.iter().zip(&places))
            .filter(|(_, place)| place.is_none())
            .map(|(class, _)| format!("“{class}”"))
            .collect();
        if !unknown.is_empty() {
            return Err(Error::Unsupported(format!(
                "the teacher knows {} classes, but not {}; a teacher must know all classes of the photos: train one \
                 on them",
                model.labels.len(),
                shortened(&unknown),
            )));
        }
        let mut graph = model.graph.clone();
        let mut features = 0;
        if hints {
            let unsupported = |error: penjing_runtime::Error| Error::Unsupported(error.to_string());
            let told = distill::features(&graph)?;
            let logits =
                graph.output().ok_or_else(|| Error::Unsupported("the teacher has no layers".into()))?;
            features = graph.shape(told)[3];
            graph.push("distill.joined", Op::Concat, &[logits, told]).map_err(unsupported)?;
        }
        let runner = Runner::new(&graph, &model.weights, &model.pixels, 1)?;
        Ok(Teacher {
            runner,
            places: places.into_iter().flatten().collect(),
            classes: model.labels.len(),
            features,
        })
    }

    /// The contract of what it sees.
    pub fn pixels(&self) -> &Pixels {
        self.runner.pixels()
    }

    /// Number of its features; 0 without hints.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Values of an answer: the student's classes, then the features.
    pub fn width(&self) -> usize {
        self.places.len() + self.features
    }

    /// Its answer to an input of its contract.
    ///
    /// # Panics
    /// If `input` or `answer` has another length.
    pub fn answer(&self, input: &[f32], answer: &mut [f32]) {
        let output = self.runner.run_tensor(input, &Serial);
        let (logits, features) = output.split_at(self.classes);
        let (told, rest) = answer.split_at_mut(self.places.len());
        for (told, &place) in told.iter_mut().zip(&self.places) {
            *told = logits[place];
        }
        rest.copy_from_slice(features);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model,
        transfer::adapt::{self, Input},
    };

    #[test]
    fn the_classes_are_found_by_name_and_the_features_are_those_before_dropout() {
        let input = Input { size: Some(64), ..Input::default() };
        let model = adapt::adapt(&model::bundled().unwrap(), &input).unwrap();
        let [first, second] = [7, 3].map(|place| model.labels[place].clone());
        let classes = [first, second];
        let pixels: Vec<f32> = (0..model.pixels.len()).map(|i| (i % 31) as f32 / 15.0 - 1.0).collect();
        let logits = Runner::new(&model.graph, &model.weights, &model.pixels, 1).unwrap();
        let logits = logits.run_tensor(&pixels, &Serial);
        let answer = |hints: bool| {
            let teacher = Teacher::new(&model, &classes, hints).unwrap();
            let mut answer = vec![f32::NAN; teacher.width()];
            teacher.answer(&pixels, &mut answer);
            answer
        };
        assert_eq!(answer(false), [logits[7], logits[3]]);
        let with = answer(true);
        assert_eq!((with.len(), &with[..2]), (2 + 1280, &[logits[7], logits[3]][..]));
        // The classifier on what are called features gives the logits.
        let (head, _) = model.graph.classifier().unwrap();
        let name = &model.graph.node(head).name;
        let [weight, bias] =
            ["weight", "bias"].map(|suffix| model.weights[&format!("{name}.{suffix}")].to_f32());
        for (class, logit) in [7, 3].into_iter().zip(&with[..2]) {
            let row = weight[class * 1280..][..1280].iter().zip(&with[2..]);
            let sum: f32 = row.map(|(w, f)| w * f).sum::<f32>() + bias[class];
            assert!((sum - logit).abs() < 1e-3, "{sum} {logit}");
        }
    }

    #[test]
    fn a_teacher_of_other_classes_is_refused() {
        let model = model::bundled().unwrap();
        let classes: Vec<String> =
            std::iter::once(model.labels[0].clone()).chain((0..7).map(|i| format!("none {i}"))).collect();
        let error = Teacher::new(&model, &classes, false).unwrap_err().to_string();
        assert!(
            error.contains("1000 classes, but not “none 0”, “none 1”") && error.contains("and 2 more"),
            "{error}"
        );
        assert!(!error.contains(&format!("“{}”", model.labels[0])), "{error}");
    }
}
