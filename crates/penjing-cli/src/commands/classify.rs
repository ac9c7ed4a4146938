//! `penjing classify`.

use std::{
    fmt::Write as _,
    io::Read as _,
    path::{Path, PathBuf},
    sync::mpsc,
};

use penjing::{
    Error,
    classifier::{Classifier, Guess, Smoothing},
    data::{
        decode::{self, Limits},
        displayed,
        frames::{Format, Frames},
        photos_below,
    },
    model,
    progress::Progress as _,
};
use rayon::prelude::*;

use super::{Outcome, ThreadsArg, refuse};
use crate::console::Console;

/// Name what photos show
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Photos, folders of photos, or - for one photo on stdin
    #[arg(value_name = "IMAGE|DIR|-", required = true)]
    photos: Vec<PathBuf>,
    /// How many classes to name for each photo
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Stdin is a stream of frames, as ffmpeg writes them: mjpeg, or the size of raw RGB ones, such as 640x480. Each is
    /// answered by a line at once, with --json by a document of its own
    #[arg(long, value_name = "mjpeg|WxH")]
    frames: Option<Format>,
    /// Answer for about the last N frames together, so that a single odd one changes nothing
    #[arg(long, value_name = "N", requires = "frames", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    smooth: u16,
    #[command(flatten)]
    threads: ThreadsArg,
}

#[derive(serde::Serialize)]
struct Answer {
    #[serde(serialize_with = "displayed")]
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<Vec<Guess>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(serde::Serialize)]
struct FrameAnswer {
    /// Counted from 1, missing ones included.
    frame: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<Vec<Guess>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    if let Some(format) = args.frames {
        if args.photos.iter().any(|path| path.as_os_str() != "-") {
            return Err(refuse("classify", "--frames reads stdin: give - and no photo").into());
        }
        return stream(&args, format, console);
    }
    let mut answers = Vec::new();
    let mut photos = Vec::new();
    for path in &args.photos {
        // Photos that were named are tried whatever their name; in a folder the extension decides.
        if path.is_dir() {
            let (below, unreadable) = photos_below(path);
            let failed = |path: PathBuf, error: String| Answer { path, top: None, error: Some(error) };
            if below.is_empty() && unreadable.is_empty() {
                answers.push(failed(path.clone(), "no photo in this folder".to_string()));
            }
            answers.extend(unreadable.into_iter().map(|notice| failed(notice.path, notice.what)));
            photos.extend(below);
        } else {
            photos.push(path.clone());
        }
    }
    let classifier = Classifier::new(&model::load(&args.model)?)?;
    let top = usize::from(args.top);
    let answer = |path: &PathBuf| {
        if console.cancelled() {
            return None;
        }
        let result = guess(&classifier, path, top);
        console.advance(1);
        Some(match result {
            Ok(top) => Answer { path: path.clone(), top: Some(top), error: None },
            Err(error) => Answer { path: path.clone(), top: None, error: Some(error.to_string()) },
        })
    };
    // One photo needs no threads, and starting them takes longer than it does.
    let given: Option<Vec<Answer>> = if let [path] = &photos[..] {
        [answer(path)].into_iter().collect()
    } else {
        let threads = args.threads.start()?;
        console.begin("classifying", photos.len());
        let answers = threads.install(|| photos.par_iter().map(answer).collect());
        console.end();
        answers
    };
    answers.extend(given.ok_or(Error::Interrupted)?);

    for Answer { path, error, .. } in &answers {
        if let Some(error) = error {
            let named = error.starts_with(&path.display().to_string());
            console.error(&if named { error.clone() } else { format!("{}: {error}", path.display()) });
        }
    }
    let failed = answers.iter().any(|answer| answer.error.is_some());
    console.result(&answers, || describe(&answers))?;
    Ok(if failed { Outcome::SomeFailed } else { Outcome::Done })
}

/// Names what the frames on stdin show, while the next one is read and decoded on another thread.
fn stream(args: &Args, format: Format, console: &Console) -> anyhow::Result<Outcome> {
    /// Frames that wait; more would only be older when their turn comes.
    const WAITING: usize = 1;
    let classifier = Classifier::new(&model::load(&args.model)?)?;
    let (mut smoothing, top) = (Smoothing::over(args.smooth), usize::from(args.top));
    let (send, receive) = mpsc::sync_channel(WAITING);
    let pixels = classifier.pixels().clone();
    std::thread::spawn(move || {
        let decode = |jpeg: &[u8]| decode::decode_for(jpeg, &Limits::default(), &pixels);
        for frame in Frames::new(std::io::stdin().lock(), format, decode) {
            // Nobody listens any more once an answer could not be written.
            if send.send(frame).is_err() {
                return;
            }
        }
    });
    let (mut outcome, mut seen) = (Outcome::Done, 0);
    for (frame, photo) in (1..).zip(receive) {
        seen = frame;
        let (top, error) = match photo {
            Ok(photo) => (Some(classifier.classify_frame(photo.view(), &mut smoothing, top)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(error) = &error {
            console.error(&format!("frame {frame}: {error}"));
            outcome = Outcome::SomeFailed;
        }
        let answer = FrameAnswer { frame, top, error };
        console.result(&answer, || match &answer.top {
            Some(top) => format!("{frame}: {}\n", spoken(top)),
            None => String::new(),
        })?;
    }
    if seen == 0 {
        return Err(Error::Unsupported("no frame came on stdin; does what writes them run?".into()).into());
    }
    Ok(outcome)
}

fn guess(classifier: &Classifier, path: &Path, top: usize) -> penjing::Result<Vec<Guess>> {
    let limits = Limits::default();
    let photo = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let most = limits.max_file_bytes.saturating_add(1);
        let read = std::io::stdin().lock().take(most).read_to_end(&mut bytes);
        read.map_err(|error| Error::io(path, "read stdin", error))?;
        decode::decode_for(&bytes, &limits, classifier.pixels())
            .map_err(|error| Error::data(path, error.to_string()))?
    } else {
        decode::read_for(path, &limits, classifier.pixels())?
    };
    Ok(classifier.classify(photo.view(), top))
}

fn describe(answers: &[Answer]) -> String {
    let mut text = String::new();
    for answer in answers {
        let Some(top) = &answer.top else { continue };
        let _ = writeln!(text, "{}: {}", answer.path.display(), spoken(top));
    }
    text
}

fn spoken(top: &[Guess]) -> String {
    let guesses: Vec<String> =
        top.iter().map(|guess| format!("{} {:.1} %", guess.label, 100.0 * guess.p)).collect();
    guesses.join(", ")
}
