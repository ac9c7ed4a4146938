//! What a run tells programs: one JSON object on each line.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{Error, Result};

/// One line of a [`Log`]. The field `event` names the variant; accuracies are fractions 0..1, losses and NLL are
/// natural logarithms, and a number that is none (NaN, infinity) is `null`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// A phase begins.
    Phase {
        /// What it does.
        name: &'a str,
    },
    /// A step is done.
    Step {
        /// Epoch, from 1.
        epoch: u64,
        /// Step of the whole run, from 1.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Training loss of the batch.
        loss: f64,
        /// Peak learning rate times the schedule's factor.
        lr: f32,
        /// Photos each second, lately.
        images_per_s: f64,
        /// Seconds that the step, done with its own work, waited for the photos of the next.
        waited_s: f64,
    },
    /// An epoch is done and was validated.
    Epoch {
        /// From 1.
        epoch: u64,
        /// Epochs of the whole run.
        epochs: u64,
        /// Mean training loss.
        loss: f64,
        /// Accuracy of the moving average of the weights on held-out photos.
        val_top1: f64,
        /// Its mean negative log-likelihood on them.
        val_nll: f64,
        /// Of its last step.
        lr: f32,
        /// Mean over the epoch.
        images_per_s: f64,
        /// Until the end of training, as far as one can tell.
        seconds_left: f64,
    },
    /// The run is over and its result is written.
    Done {
        /// Epochs of the whole run.
        epochs: u64,
        /// Of the result.
        val_top1: f64,
        /// Of the result.
        val_nll: f64,
        /// Since the start or the last resumption.
        seconds: f64,
    },
}

/// A file that grows by one line for each [`Event`]; a run that goes on appends.
///
/// After it is open, a log never fails the work: what cannot be written is lost, and [`Log::take_notice`] says why, once.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    notice: Option<String>,
}

impl Log {
    /// Opens the file, or makes it. A line that was cut short by a kill is ended first.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or written.
    pub fn open(path: &Path) -> Result<Log> {
        let failed = |error| Error::io(path, "write", error);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut last = [b'\n'];
        // Pipes and devices have no end to look at.
        if file.metadata().is_ok_and(|there| there.is_file() && there.len() > 0) {
            file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map_err(failed)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Log { path: path.to_owned(), file: Some(file), notice: None })
    }

    /// Appends one line, with a single write: nothing waits in memory for a later flush.
    pub fn write(&mut self, event: &Event<'_>) {
        let Some(file) = &mut self.file else { return };
        let line = serde_json::to_string(event).map_err(std::io::Error::from);
        if let Err(error) = line.and_then(|line| file.write_all((line + "\n").as_bytes())) {
            self.file = None;
            self.notice = Some(format!(
                "{}: cannot write, further lines of the log are lost: {error}",
                self.path.display()
            ));
        }
    }

    /// Why lines are lost, once; `None` while all is well.
    pub fn take_notice(&mut self) -> Option<String> {
        self.notice.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_broken_one_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let mut log = Log::open(&path).unwrap();
        log.write(&Event::Phase { name: "a \"phase\"\nof two lines" });
        log.write(&Event::Step {
            epoch: 1,
            step: 2,
            steps: 9,
            loss: f64::NAN,
            lr: 1e-3,
            images_per_s: f64::INFINITY,
            waited_s: 0.25,
        });
        // Readable while the log is open.
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        drop(log);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"ep").unwrap();
        let mut log = Log::open(&path).unwrap();
        log.write(&Event::Epoch {
            epoch: 1,
            epochs: 3,
            loss: 0.5,
            val_top1: 0.75,
            val_nll: 0.25,
            lr: 0.0,
            images_per_s: 10.0,
            seconds_left: 1.5,
        });
        drop(log);
        let mut log = Log::open(&path).unwrap();
        log.write(&Event::Phase { name: "n" });
        log.write(&Event::Done { epochs: 3, val_top1: 1.0, val_nll: 0.125, seconds: 2.0 });
        assert_eq!(log.take_notice(), None);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap().lines().collect::<Vec<_>>(),
            [
                r#"{"event":"phase","name":"a \"phase\"\nof two lines"}"#,
                r#"{"event":"step","epoch":1,"step":2,"steps":9,"loss":null,"lr":0.001,"images_per_s":null,"waited_s":0.25}"#,
                r#"{"event":"ep"#,
                concat!(
                    r#"{"event":"epoch","epoch":1,"epochs":3,"loss":0.5,"val_top1":0.75,"val_nll":0.25,"#,
                    r#""lr":0.0,"images_per_s":10.0,"seconds_left":1.5}"#
                ),
                r#"{"event":"phase","name":"n"}"#,
                r#"{"event":"done","epochs":3,"val_top1":1.0,"val_nll":0.125,"seconds":2.0}"#,
            ]
        );
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = Log::open(&folder.path().join("none/run.jsonl")).unwrap_err();
        assert!(error.to_string().contains("run.jsonl: cannot write"), "{error}");
        assert!(Log::open(folder.path()).is_err());
    }

    /// Linux has a device that is always full.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_once() {
        let mut log = Log::open(Path::new("/dev/full")).unwrap();
        log.write(&Event::Phase { name: "lost" });
        let notice = log.take_notice().unwrap();
        assert!(notice.starts_with("/dev/full: cannot write, further lines"), "{notice}");
        log.write(&Event::Phase { name: "lost" });
        assert_eq!(log.take_notice(), None);
    }
}
