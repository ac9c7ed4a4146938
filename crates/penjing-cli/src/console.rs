//! What the user sees: results on stdout, everything else on stderr.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use penjing::progress::Progress;

/// The two streams, the progress bar and the wish to stop.
#[derive(Debug)]
pub struct Console {
    json: bool,
    quiet: bool,
    bar: Mutex<Option<ProgressBar>>,
    cancelled: Arc<AtomicBool>,
    /// Whether a phase is under way, which asks for `cancelled` again and again.
    working: Arc<AtomicBool>,
}

impl Console {
    /// From now on Ctrl-C (and SIGTERM, SIGHUP) asks a phase of work to stop; between phases, or asked again, the
    /// process ends at once.
    pub fn new(json: bool, quiet: bool) -> Self {
        let (cancelled, working) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stop, busy) = (Arc::clone(&cancelled), Arc::clone(&working));
        // Where signals are ignored on purpose, as under `nohup`, they stay ignored. Without a handler Ctrl-C still
        // ends the process, and no file is left half written.
        let _ = ctrlc::try_set_handler(move || {
            if stop.swap(true, Ordering::SeqCst) || !busy.load(Ordering::SeqCst) {
                // Nobody would look at the flag, or not soon enough.
                #[allow(clippy::disallowed_methods)]
                std::process::exit(130);
            }
        });
        Console { json, quiet, bar: Mutex::new(None), cancelled, working }
    }

    /// The result: one JSON document, or the text for people.
    pub fn result(&self, json: &impl serde::Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        // Whole before a byte is written: half a document is none.
        let text = if self.json { serde_json::to_string(json)? + "\n" } else { printable(&text()) };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Whoever read the output has gone away; what is done, and how it ended, stays.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("stdout"),
        }
    }

    /// A line about the work.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.line(line);
        }
    }

    /// A line that is shown even when quiet.
    pub fn error(&self, line: &str) {
        self.line(&format!("penjing: {line}"));
    }

    fn line(&self, line: &str) {
        let print = || {
            let _ = writeln!(std::io::stderr(), "{}", printable(line));
        };
        match &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Progress for Console {
    fn begin(&self, phase: &str, items: usize) {
        self.working.store(true, Ordering::SeqCst);
        let shown = !self.quiet && std::io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(items as u64), target);
        let style = "{prefix:12} [{bar:30}] {pos}/{len}  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(phase.to_string());
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
    }

    fn advance(&self, items: usize) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.inc(items as u64);
        }
    }

    fn end(&self) {
        self.working.store(false, Ordering::SeqCst);
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    fn notice(&self, line: &str) {
        self.say(line);
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// The text without what could steer a terminal: names of files and classes come from outside.
fn printable(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n';
    text.chars().map(|c| if steers(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Most memory the process has held so far, where the system tells (Linux).
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A duration in seconds with so many decimals.
pub fn round(duration: Duration, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (duration.as_secs_f64() * scale).round() / scale
}

/// A size, for people.
pub fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}
