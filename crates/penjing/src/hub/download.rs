//! From an address to a file: over cuts, silences and busy servers.

use std::{
    fs::File,
    io::Write as _,
    ops::Range,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{
    answer::Answer,
    http::{self, Event, Request},
    part::{Note, Part},
};
use crate::{Error, Result, progress::Progress};

/// When to wait, and when no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Longest time to find the server, and then to connect to it.
    pub connect: Duration,
    /// Longest time without a byte.
    pub silence: Duration,
    /// Most tries in all.
    pub tries: u32,
    /// Pause after the first try that failed; each further one is twice as long.
    pub pause: Duration,
    /// Longest pause that a server may ask for.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        }
    }
}

/// A file to fetch.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub url: &'a str,
    /// Its length in bytes, where it is known.
    pub bytes: Option<u64>,
    pub patience: Patience,
    pub environment: bool,
}

/// What the hub said of a file that has arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub commit: Option<String>,
    pub sha256: Option<String>,
    /// Bytes that were received for it, now and not before.
    pub received: u64,
}

/// Longest file that is fetched.
const MAX_BYTES: u64 = 2 << 30;
const MAX_REDIRECTS: usize = 5;
/// How often the user's wish to stop is looked for.
const TICK: Duration = Duration::from_millis(50);

/// Why a try failed.
enum Trouble {
    /// Another may go better, after so long if the server says.
    Passing {
        what: String,
        pause: Option<Duration>,
    },
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Final(error)
    }
}

impl Download<'_> {
    /// Fetches the file, or what is missing of it, into `part`.
    ///
    /// # Errors
    /// [`Error::Remote`] when the server refuses, gives something else, or is not to be reached for longer than `patience`;
    /// what arrived is kept. [`Error::Interrupted`] when the watcher says so.
    pub fn run(&self, part: &Part, progress: &dyn Progress) -> Result<Said> {
        let Patience { tries, pause, longest, .. } = self.patience;
        let (mut received, mut tried) = (0, 0);
        loop {
            tried += 1;
            let (what, asked) = match self.attempt(part, &mut received, progress) {
                Ok(said) => return Ok(Said { received, ..said }),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing { what, pause }) => (what, pause),
            };
            if let Some(asked) = asked.filter(|asked| *asked > longest) {
                let seconds = asked.as_secs();
                return Err(self.fault(format!("{what}, and asks to wait for {seconds} s; try again then")));
            }
            if tried >= tries {
                let goes_on =
                    if part.held(self.url).is_some() { " goes on from there" } else { " tries again" };
                return Err(
                    self.fault(format!("{what}; given up after {tried} tries, the same command{goes_on}"))
                );
            }
            let pause =
                pause.saturating_mul(1 << (tried - 1).min(16)).min(longest).max(asked.unwrap_or_default());
            progress.notice(&format!(
                "{}: {what}; try {} of {tries} in {} s",
                self.url,
                tried + 1,
                pause.as_secs_f32()
            ));
            self.wait(pause, progress)?;
        }
    }

    fn wait(&self, pause: Duration, progress: &dyn Progress) -> Result<()> {
        let began = Instant::now();
        while let Some(left) = pause.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(left.min(TICK));
        }
        Ok(())
    }

    fn attempt(&self, part: &Part, received: &mut u64, progress: &dyn Progress) -> Result<Said, Trouble> {
        let held = part.held(self.url);
        if let Some((note, there)) = &held
            && note.bytes == *there
        {
            return Ok(Said { commit: note.commit.clone(), sha256: note.sha256.clone(), received: 0 });
        }
        let (answer, said, events) = self.ask(held.as_ref(), progress)?;
        if matches!(answer.status, 200 | 206) && !answer.is_plain() {
            return Err(self.fault("sends the file in a compressed form, which was not asked for").into());
        }
        let (file, there, whole) = match (answer.status, held) {
            (206, Some((note, there))) => {
                let same = answer.tag().is_none_or(|tag| tag == note.tag);
                if answer.part() != Some((there, note.bytes)) || !same {
                    part.remove()?;
                    return Err(passing("sends another part of the file than it was asked for"));
                }
                (part.go_on()?, there, Some(note.bytes))
            }
            (200, _) => {
                let whole = answer.length();
                self.check_length(whole, answer.linked_length().or(said.bytes))?;
                let note = whole.zip(answer.tag()).map(|(bytes, tag)| Note {
                    url: self.url.to_string(),
                    tag: tag.to_string(),
                    bytes,
                    commit: said.commit.clone(),
                    sha256: said.sha256.clone(),
                });
                (part.begin(note.as_ref())?, 0, whole)
            }
            (416, Some(_)) => {
                part.remove()?;
                return Err(passing("has no more of the file than is there"));
            }
            (status, _) => return Err(self.refused(status, &answer)),
        };
        progress.begin("kilobytes", (whole.unwrap_or(0) / 1000) as usize);
        progress.advance((there / 1000) as usize);
        let most = whole.or(self.bytes).or(said.bytes).unwrap_or(MAX_BYTES);
        let arrived = self.receive(&events, file, there..most, part, received, progress);
        progress.end();
        let there = arrived?;
        if whole.is_some_and(|whole| whole != there) {
            return Err(passing("the connection was cut"));
        }
        Ok(Said { commit: said.commit, sha256: said.sha256, received: 0 })
    }

    /// Asks for the file, or what is missing, and follows redirects to whoever has it.
    fn ask(
        &self,
        held: Option<&(Note, u64)>,
        progress: &dyn Progress,
    ) -> Result<(Answer, Named, Receiver<Event>), Trouble> {
        let mut url = self.url.to_string();
        let mut named = Named::default();
        for _ in 0..=MAX_REDIRECTS {
            let events = http::get(Request {
                url: url.clone(),
                from: held.map(|(note, there)| (*there, note.tag.clone())),
                connect: self.patience.connect,
                silence: self.patience.silence,
                environment: self.environment,
            });
            let answer = match self.next(&events, progress)? {
                Event::Answer(answer) => answer,
                Event::Bytes(_) | Event::End => return Err(passing("gave no answer")),
                Event::Failed(failure) => return Err(self.failed(failure)),
            };
            // The hub itself is asked first; those it sends us to have less to say.
            named.commit = named.commit.or(answer.commit().map(str::to_string));
            named.sha256 = named.sha256.or(answer.sha256().map(str::to_string));
            named.bytes = named.bytes.or(answer.linked_length());
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok((answer, named, events));
            }
            url = answer
                .location(&url)
                .ok_or_else(|| self.fault("redirects to no address of HTTP, or to one without encryption"))?;
        }
        Err(self.fault(format!("redirects more than {MAX_REDIRECTS} times")).into())
    }

    /// Writes what arrives, up to the end; gives the file's length. `span` is what is there and what there may be in all.
    fn receive(
        &self,
        events: &Receiver<Event>,
        mut file: File,
        span: Range<u64>,
        part: &Part,
        received: &mut u64,
        progress: &dyn Progress,
    ) -> Result<u64, Trouble> {
        let mut there = span.start;
        let failed = |error| Error::io(part.path(), "write", error);
        loop {
            match self.next(events, progress)? {
                Event::Bytes(bytes) => {
                    let before = there;
                    there += bytes.len() as u64;
                    *received += bytes.len() as u64;
                    if there > span.end {
                        part.remove()?;
                        return Err(self.fault("sends more than it announced, or than is fetched").into());
                    }
                    file.write_all(&bytes).map_err(failed)?;
                    progress.advance((there / 1000 - before / 1000) as usize);
                }
                Event::End => {
                    file.sync_all().map_err(failed)?;
                    return Ok(there);
                }
                Event::Answer(_) => return Err(passing("the connection was cut")),
                Event::Failed(failure) => return Err(self.failed(failure)),
            }
        }
    }

    /// The next event, unless the user wants to stop first.
    fn next(&self, events: &Receiver<Event>, progress: &dyn Progress) -> Result<Event, Trouble> {
        loop {
            if progress.cancelled() {
                return Err(Error::Interrupted.into());
            }
            match events.recv_timeout(TICK) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(passing("the connection was cut")),
            }
        }
    }

    fn check_length(&self, announced: Option<u64>, linked: Option<u64>) -> Result<()> {
        let Some(announced) = announced else { return Ok(()) };
        if announced > MAX_BYTES {
            return Err(self.fault(format!("has {announced} bytes; at most {MAX_BYTES} are fetched")));
        }
        if let Some(linked) = linked.filter(|linked| *linked != announced) {
            return Err(self.fault(format!("sends {announced} bytes, but the hub says that it has {linked}")));
        }
        if let Some(expected) = self.bytes.filter(|expected| *expected != announced) {
            return Err(self.fault(format!(
                "has {announced} bytes now, {expected} at the first pull; it is not the same file any more. \
                 --update takes what the hub has now"
            )));
        }
        Ok(())
    }

    fn refused(&self, status: u16, answer: &Answer) -> Trouble {
        let what = match status {
            429 => "the hub answers 429, too many requests".to_string(),
            500 | 502 | 503 | 504 => format!("the hub answers {status}, it has trouble of its own"),
            404 => "the hub answers 404, it has no such repository, revision or file; a newer penjing may know its new place"
                .to_string(),
            401 | 403 => format!(
                "the hub answers {status}, it refuses access: the repository needs a login or is gone; get the file by other \
                 means and bring it with `penjing weights import`"
            ),
            _ => format!("the hub answers {status}; expected 200"),
        };
        match status {
            429 | 500 | 502 | 503 | 504 => Trouble::Passing { what, pause: answer.retry_after() },
            _ => Trouble::Final(self.fault(what)),
        }
    }

    fn failed(&self, failure: http::Failure) -> Trouble {
        if failure.passing { passing(&failure.what) } else { self.fault(failure.what).into() }
    }

    fn fault(&self, what: impl Into<String>) -> Error {
        Error::remote(self.url, what)
    }
}

fn passing(what: &str) -> Trouble {
    Trouble::Passing { what: what.to_string(), pause: None }
}

/// What the answers on the way to a file said of it.
#[derive(Debug, Default)]
struct Named {
    commit: Option<String>,
    sha256: Option<String>,
    bytes: Option<u64>,
}
