//! Weights pulled from a hub on this machine, which behaves well and badly.
#![cfg(feature = "pull")]
#![forbid(unsafe_code)]

mod server;
mod weights;

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use penjing::{
    Error,
    hub::{Hub, Patience, Pulled, Record, Source},
    model,
    progress::{Progress, Quiet},
    zoo::forms,
};
use penjing_runtime::pixels::{Filter, Fit};
use server::{Server, Turn};

const NAME: &str = "mobilenet_v1_x0.05";
const CLASSES: usize = 3;
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

const SOURCE: Source = Source {
    name: NAME,
    repository: "owner/name",
    revision: "main",
    file: "model.safetensors",
    sha256: None,
    form: "timm",
    license: "CC-BY-4.0",
    size: 64,
    short: 70,
    look: forms::imagenet(Filter::Bicubic),
    top1: 0.0,
};

/// A cache of one's own, and a hub that loses patience soon.
struct Cache(tempfile::TempDir);

impl Cache {
    fn new() -> Cache {
        Cache(tempfile::tempdir().unwrap())
    }

    fn hub(&self, server: &Server) -> Hub {
        Hub {
            url: server.url.clone(),
            folder: self.0.path().join("hub"),
            offline: false,
            environment: false,
            patience: Patience {
                connect: Duration::from_secs(5),
                silence: Duration::from_millis(300),
                tries: 5,
                pause: Duration::from_millis(1),
                longest: Duration::from_secs(2),
            },
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join("hub").join(NAME).join(name)
    }

    /// Names of what lies there, without the lock.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".pulling");
        names.sort();
        names
    }

    fn record(&self) -> Record {
        Record::parse(&fs::read(self.at("source.lock")).unwrap()).unwrap()
    }
}

fn weights(seed: u64) -> Vec<u8> {
    weights::state_dict(NAME, CLASSES, seed)
}

#[track_caller]
fn refused(pulled: Result<Pulled, Error>, words: &[&str]) -> Error {
    let error = pulled.map(|pulled| pulled.record).expect_err("was pulled");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is missing: {error}");
    }
    error
}

#[test]
fn the_first_pull_records_what_later_ones_enforce_and_the_second_asks_nobody() {
    let (cache, file) = (Cache::new(), weights(1));
    let server = Server::start(file.clone(), &format!("X-Repo-Commit: {COMMIT}\r\n"), []);
    let hub = cache.hub(&server);
    let pulled = hub.pull(&SOURCE, false, &Quiet).unwrap();
    assert_eq!(server.asked()[0].line, "GET /owner/name/resolve/main/model.safetensors HTTP/1.1");
    assert_eq!((pulled.received, pulled.first), (Some(file.len() as u64), true));
    assert_eq!(fs::read(cache.at("model.safetensors")).unwrap(), file);
    assert_eq!(cache.names(), [&format!("{NAME}.penjing"), "model.safetensors", "source.lock"]);
    let record = cache.record();
    assert_eq!(record, pulled.record);
    assert_eq!((record.commit.as_deref(), record.bytes), (Some(COMMIT), file.len() as u64));
    assert_eq!(
        (&*record.license, &*record.repository, &*record.revision),
        ("CC-BY-4.0", "owner/name", "main")
    );

    let model = model::load(&pulled.path).unwrap();
    assert_eq!(pulled.path, cache.at(&format!("{NAME}.penjing")));
    assert_eq!(model.weights, pulled.model.weights);
    assert_eq!((model.arch.as_str(), model.labels.len()), (NAME, CLASSES));
    assert_eq!(model.provenance.backbone, format!("owner/name@{COMMIT}/model.safetensors"));
    assert_eq!(model.provenance.license, "CC-BY-4.0");
    // The pixels are those of these weights, not of the network's table.
    assert_eq!((model.pixels.filter, model.pixels.fit), (Filter::Bicubic, Fit::Crop { short: 70 }));
    assert_eq!((model.pixels.width, model.pixels.mean), (64, [123.675, 116.28, 103.53]));

    for offline in [false, true] {
        let again = Hub { offline, ..cache.hub(&server) }.pull(&SOURCE, false, &Quiet).unwrap();
        assert_eq!((again.received, again.first, again.record), (None, false, record.clone()));
    }
    assert_eq!(server.asked().len(), 1, "a hit asked the hub");

    // A model that is lost or damaged is made again of the weights that are there.
    fs::write(&pulled.path, "no model").unwrap();
    Hub { offline: true, ..cache.hub(&server) }.pull(&SOURCE, false, &Quiet).unwrap();
    assert_eq!(model::load(&pulled.path).unwrap().weights, model.weights);

    // Weights that are lost are fetched again, by the commit.
    fs::remove_file(cache.at("model.safetensors")).unwrap();
    let again = hub.pull(&SOURCE, false, &Quiet).unwrap();
    assert_eq!((again.received, again.first, &again.record), (Some(file.len() as u64), false, &record));
    assert_eq!(
        server.asked()[1].line,
        format!("GET /owner/name/resolve/{COMMIT}/model.safetensors HTTP/1.1")
    );
}

#[test]
fn offline_without_the_weights_says_so_and_asks_nobody() {
    let (cache, server) = (Cache::new(), Server::start(weights(1), "", []));
    let hub = Hub { offline: true, ..cache.hub(&server) };
    refused(hub.pull(&SOURCE, false, &Quiet), &["owner/name", "not in the cache", "--offline"]);
    assert_eq!(server.asked(), []);
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let (cache, file) = (Cache::new(), weights(1));
    let server = Server::start(file.clone(), "", [Turn::Cut(5000), Turn::Cut(7000)]);
    let pulled = cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap();
    let ranges: Vec<_> = server.asked().into_iter().map(|asked| (asked.range, asked.if_range)).collect();
    let tag = Some("\"0\"".to_string());
    assert_eq!(
        ranges,
        [(None, None), (Some("bytes=5000-".into()), tag.clone()), (Some("bytes=12000-".into()), tag)]
    );
    assert_eq!(fs::read(cache.at("model.safetensors")).unwrap(), file);
    assert_eq!(pulled.received, Some(file.len() as u64));
    assert!(!cache.names().iter().any(|name| name.contains("part")), "{:?}", cache.names());
}

#[test]
fn the_next_command_goes_on_where_the_last_one_gave_up() {
    let (cache, file) = (Cache::new(), weights(1));
    let server = Server::start(file.clone(), "", [Turn::Cut(5000)]);
    let mut hub = cache.hub(&server);
    hub.patience.tries = 1;
    refused(hub.pull(&SOURCE, false, &Quiet), &["connection was cut", "1 tries", "goes on from there"]);
    assert_eq!(fs::read(cache.at("model.safetensors.part")).unwrap(), file[..5000]);
    let pulled = hub.pull(&SOURCE, false, &Quiet).unwrap();
    assert_eq!(pulled.received, Some(file.len() as u64 - 5000));
    assert_eq!(fs::read(cache.at("model.safetensors")).unwrap(), file);

    // Killed after the last byte: nothing is missing, so nobody is asked.
    let cache = Cache::new();
    server.then([Turn::Cut(file.len() - 1), Turn::Well]);
    let mut hub = cache.hub(&server);
    hub.patience.tries = 1;
    hub.pull(&SOURCE, false, &Quiet).unwrap_err();
    fs::write(cache.at("model.safetensors.part"), &file).unwrap();
    let asked = server.asked().len();
    assert_eq!(hub.pull(&SOURCE, false, &Quiet).unwrap().received, Some(0));
    assert_eq!(server.asked().len(), asked);
}

#[test]
fn servers_that_cannot_continue_begin_anew() {
    for (turn, asked, received) in [
        (Turn::IgnoreRange, 2, 1),
        (Turn::Change(weights(2)), 2, 1),
        (Turn::WrongPart, 3, 1),
        (Turn::Status(416, ""), 3, 1),
    ] {
        let cache = Cache::new();
        let server = Server::start(weights(1), "", [Turn::Cut(5000), turn.clone()]);
        let pulled =
            cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap_or_else(|e| panic!("{turn:?}: {e}"));
        let file = if matches!(turn, Turn::Change(_)) { weights(2) } else { weights(1) };
        assert!(fs::read(cache.at("model.safetensors")).unwrap() == file, "{turn:?}");
        assert_eq!(server.asked().len(), asked, "{turn:?}");
        assert_eq!(pulled.received, Some(5000 + received * file.len() as u64), "{turn:?}");
    }
}

#[test]
fn other_bytes_than_at_the_first_pull_are_refused_until_they_are_asked_for() {
    let (cache, server) = (Cache::new(), Server::start(weights(1), "", []));
    let hub = cache.hub(&server);
    let first = hub.pull(&SOURCE, false, &Quiet).unwrap().record;
    fs::remove_file(cache.at("model.safetensors")).unwrap();
    server.then([Turn::Damage(weights(2))]);
    refused(hub.pull(&SOURCE, false, &Quiet), &[&first.sha256, "recorded at the first pull", "--update"]);
    assert_eq!(cache.record(), first);
    assert_eq!(cache.names(), [&format!("{NAME}.penjing"), "source.lock"], "it was kept");
    assert!(hub.pull(&SOURCE, false, &Quiet).is_err(), "the second time it was believed");

    // A file of another length is not even fetched.
    server.then([Turn::Damage(weights::state_dict(NAME, 4, 1))]);
    refused(hub.pull(&SOURCE, false, &Quiet), &["bytes now", "at the first pull", "--update"]);

    let updated = hub.pull(&SOURCE, true, &Quiet).unwrap();
    assert!(updated.first && updated.record.sha256 != first.sha256 && updated.model.labels.len() == 4);
    assert_eq!(cache.record(), updated.record);
}

#[test]
fn weights_damaged_in_the_cache_are_fetched_again() {
    let (cache, file) = (Cache::new(), weights(1));
    let server = Server::start(file.clone(), "", []);
    let hub = cache.hub(&server);
    hub.pull(&SOURCE, false, &Quiet).unwrap();
    let mut damaged = file.clone();
    damaged[file.len() / 2] ^= 1;
    fs::write(cache.at("model.safetensors"), &damaged).unwrap();
    refused(Hub { offline: true, ..hub.clone() }.pull(&SOURCE, false, &Quiet), &["--offline"]);
    hub.pull(&SOURCE, false, &Quiet).unwrap();
    assert!(fs::read(cache.at("model.safetensors")).unwrap() == file);
}

#[test]
fn a_hash_that_was_verified_or_that_the_hub_names_binds_the_first_pull() {
    let cache = Cache::new();
    let hash =
        cache.hub(&Server::start(weights(1), "", [])).pull(&SOURCE, false, &Quiet).unwrap().record.sha256;
    let hash: &'static str = hash.leak();

    let verified = Source { sha256: Some(hash), ..SOURCE };
    let (cache, server) = (Cache::new(), Server::start(weights(2), "", []));
    refused(cache.hub(&server).pull(&verified, false, &Quiet), &[hash, "was not kept", "verified"]);
    assert_eq!(cache.names(), [""; 0]);
    server.then([Turn::Damage(weights(1))]);
    let pulled = cache.hub(&server).pull(&verified, false, &Quiet).unwrap();
    assert!(!pulled.first, "nothing had to be taken on trust");
    // An update does not change what was verified.
    server.then([Turn::Damage(weights(2))]);
    refused(cache.hub(&server).pull(&verified, true, &Quiet), &[hash, "verified"]);

    let said = format!("X-Linked-ETag: \"{hash}\"\r\nX-Linked-Size: {}\r\n", weights(1).len());
    let (cache, server) = (Cache::new(), Server::start(weights(2), &said, []));
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &[hash, "as the hub says", "pull it again"]);
    assert_eq!(cache.names(), [""; 0]);
    server.then([Turn::Damage(weights(1))]);
    cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap();

    let (cache, server) = (Cache::new(), Server::start(weights(1), "X-Linked-Size: 7\r\n", []));
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["the hub says that it has 7"]);
    server.then([Turn::Chunked]);
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["sends more than it announced"]);
    assert_eq!(cache.names(), [""; 0]);
}

/// Keeps what is said.
#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

impl Progress for Listener {
    fn notice(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_string());
    }
}

#[test]
fn a_busy_hub_is_asked_again_after_a_while_and_not_for_ever() {
    let busy = [Turn::Status(429, "Retry-After: 1\r\n"), Turn::Status(500, ""), Turn::Status(503, "")];
    let (cache, server) = (Cache::new(), Server::start(weights(1), "", busy));
    let mut hub = cache.hub(&server);
    hub.patience.pause = Duration::from_millis(200);
    let (listener, began) = (Listener::default(), Instant::now());
    hub.pull(&SOURCE, false, &listener).unwrap();
    // The server asked for 1 s, then 0.4 s and 0.8 s.
    let took = began.elapsed();
    assert!((2.2..8.0).contains(&took.as_secs_f64()), "{took:?}");
    let said = listener.0.into_inner().unwrap();
    for (said, words) in
        said.iter().zip([["429", "try 2 of 5 in 1 s"], ["500", "in 0.4 s"], ["503", "in 0.8 s"]])
    {
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    assert_eq!((said.len(), server.asked().len()), (3, 4));

    for status in [429, 500, 502, 503, 504] {
        let (cache, server) =
            (Cache::new(), Server::start(weights(1), "", vec![Turn::Status(status, ""); 9]));
        let words = [&status.to_string()[..], "given up after 5 tries"];
        refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &words);
        assert_eq!(server.asked().len(), 5, "{status}");
    }
    let (cache, server) =
        (Cache::new(), Server::start(weights(1), "", [Turn::Status(429, "Retry-After: 3600\r\n")]));
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["429", "wait for 3600 s"]);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn what_another_try_would_not_better_is_said_at_once() {
    for (status, words) in [
        (404, ["404", "no such repository, revision or file"]),
        (401, ["401", "needs a login or is gone"]),
        (403, ["403", "needs a login or is gone"]),
        (418, ["418", "expected 200"]),
        (206, ["206", "expected 200"]),
        (302, ["redirects to no address", "owner/name"]),
    ] {
        let (cache, server) = (Cache::new(), Server::start(weights(1), "", [Turn::Status(status, "")]));
        let error = refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &words);
        assert!(matches!(error, Error::Remote { .. }), "{error:?}");
        assert_eq!(server.asked().len(), 1, "{status}");
        assert_eq!(cache.names(), [""; 0], "{status}");
    }
    let huge = Turn::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000000\r\n\r\nx");
    let garbage = Turn::Raw(b"garbage\r\n\r\n");
    for (turn, word) in [(huge, "3000000000 bytes; at most"), (garbage, "owner/name")] {
        let (cache, server) = (Cache::new(), Server::start(weights(1), "", [turn]));
        refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &[word]);
        assert_eq!(server.asked().len(), 1, "{word}");
    }
    let (cache, server) = (Cache::new(), Server::start(weights(1), "Content-Encoding: gzip\r\n", []));
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["compressed"]);
}

#[test]
fn silence_is_not_waited_for_but_slowness_is() {
    let file = weights(1);
    let silent = [Turn::Stall(5000), Turn::Silence, Turn::Raw(b"")];
    let (cache, server) = (Cache::new(), Server::start(file.clone(), "", silent));
    let listener = Listener::default();
    let began = Instant::now();
    cache.hub(&server).pull(&SOURCE, false, &listener).unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let said = listener.0.into_inner().unwrap();
    assert!(
        said.len() == 3 && said[..2].iter().all(|line| line.contains("nothing came for 0.3 s")),
        "{said:?}"
    );
    assert_eq!(server.asked().last().unwrap().range.as_deref(), Some("bytes=5000-"));
    assert!(fs::read(cache.at("model.safetensors")).unwrap() == file);

    let slow = Turn::Trickle(file.len() / 20, Duration::from_millis(60));
    let (cache, server) = (Cache::new(), Server::start(file.clone(), "", [slow]));
    let began = Instant::now();
    cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap();
    assert!(began.elapsed() > Duration::from_secs(1), "it was slower than the longest silence");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn redirects_are_followed_and_the_hub_alone_names_the_commit() {
    let file = weights(1);
    let store =
        Server::start(file.clone(), &format!("X-Repo-Commit: {}\r\n", "f".repeat(40)), [Turn::Cut(5000)]);
    let to_store = format!("Location: {}/store?key=1\r\nX-Repo-Commit: {COMMIT}\r\n", store.url);
    let to_store: &'static str = to_store.leak();
    let turns = [
        Turn::Status(307, "Location: /elsewhere\r\n"),
        Turn::Status(302, to_store),
        Turn::Status(302, to_store),
    ];
    let (cache, server) = (Cache::new(), Server::start(Vec::new(), "", turns));
    let pulled = cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap();
    assert_eq!(server.asked()[1].line, "GET /elsewhere HTTP/1.1");
    assert_eq!(store.asked()[0].line, "GET /store?key=1 HTTP/1.1");
    // Going on begins at the hub again: the store's address may have expired.
    assert_eq!((server.asked().len(), store.asked().len()), (3, 2));
    assert_eq!(store.asked()[1].range.as_deref(), Some("bytes=5000-"));
    assert_eq!(pulled.record.commit.as_deref(), Some(COMMIT));
    assert!(fs::read(cache.at("model.safetensors")).unwrap() == file);

    let circle = vec![Turn::Status(302, "Location: /again\r\n"); 9];
    let (cache, server) = (Cache::new(), Server::start(weights(1), "", circle));
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["redirects more than 5 times"]);
    let (cache, server) = (
        Cache::new(),
        Server::start(weights(1), "", [Turn::Status(302, "Location: file:///etc/passwd\r\n")]),
    );
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["redirects to no address of HTTP"]);
}

#[test]
fn what_is_no_weights_file_is_refused_and_not_remembered() {
    let page = b"<html>Welcome to the hotel's network</html>".to_vec();
    let cut = weights(1)[..5000].to_vec();
    for (foreign, turns) in [
        (page.clone(), vec![]),
        (cut.clone(), vec![]),
        // Without a length only the end of the connection tells the end.
        (cut, vec![Turn::NoLength]),
        (weights::state_dict("mobilenet_v2_x0.05", 3, 1), vec![]),
        (Vec::new(), vec![]),
    ] {
        let (cache, server) = (Cache::new(), Server::start(foreign, "", turns));
        let error =
            refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["owner/name@main/model.safetensors"]);
        assert!(matches!(error, Error::Model { .. }), "{error:?}");
        assert_eq!(cache.names(), [""; 0]);
        server.then([Turn::Damage(weights(1))]);
        assert!(cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap().first);
    }
    // Bytes that somebody vouches for are kept: it is this penjing that does not understand them.
    let cache = Cache::new();
    let other = weights::state_dict("mobilenet_v2_x0.05", 3, 1);
    let relative = Source { name: "mobilenet_v2_x0.05", ..SOURCE };
    let hash = cache
        .hub(&Server::start(other.clone(), "", []))
        .pull(&relative, false, &Quiet)
        .unwrap()
        .record
        .sha256;
    let (cache, server) = (Cache::new(), Server::start(other, &format!("X-Linked-ETag: \"{hash}\"\r\n"), []));
    for _ in 0..2 {
        refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["do not fit mobilenet_v1"]);
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn files_without_a_length_arrive_too() {
    for turn in [Turn::NoLength, Turn::Chunked] {
        let (cache, server) = (Cache::new(), Server::start(weights(1), "", [turn.clone()]));
        let pulled = cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap();
        assert_eq!(pulled.record.bytes, weights(1).len() as u64, "{turn:?}");
    }
}

/// Wants to stop once something has arrived.
struct Impatient(AtomicUsize);

impl Progress for Impatient {
    fn advance(&self, items: usize) {
        self.0.fetch_add(items, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 10
    }
}

#[test]
fn the_wish_to_stop_is_heard_at_once_and_nothing_is_lost() {
    let file = weights(1);
    let (cache, server) = (Cache::new(), Server::start(file.clone(), "", [Turn::Stall(20_000)]));
    let mut hub = cache.hub(&server);
    hub.patience.silence = Duration::from_secs(30);
    let began = Instant::now();
    let error = refused(hub.pull(&SOURCE, false, &Impatient(AtomicUsize::new(0))), &["interrupted"]);
    assert!(matches!(error, Error::Interrupted) && began.elapsed() < Duration::from_secs(5));
    let kept = fs::metadata(cache.at("model.safetensors.part")).unwrap().len();
    assert!((10_000..=20_000).contains(&kept), "{kept}");
    assert_eq!(hub.pull(&SOURCE, false, &Quiet).unwrap().received, Some(file.len() as u64 - kept));
    assert!(fs::read(cache.at("model.safetensors")).unwrap() == file);

    // Between tries too.
    let (cache, server) =
        (Cache::new(), Server::start(file, "", vec![Turn::Status(503, "Retry-After: 60\r\n"); 9]));
    let mut hub = cache.hub(&server);
    hub.patience.longest = Duration::from_secs(60);
    let stopped = AtomicUsize::new(0);
    struct Later<'a>(&'a AtomicUsize);
    impl Progress for Later<'_> {
        fn cancelled(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed) > 5
        }
    }
    let began = Instant::now();
    refused(hub.pull(&SOURCE, false, &Later(&stopped)), &["interrupted"]);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn two_at_once_do_not_write_into_one_file() {
    let slow = Turn::Trickle(20_000, Duration::from_millis(100));
    let (cache, server) = (Cache::new(), Server::start(weights(1), "", [slow]));
    let hub = cache.hub(&server);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| hub.pull(&SOURCE, false, &Quiet).unwrap());
        while server.asked().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        refused(hub.pull(&SOURCE, false, &Quiet), &["another process"]);
        first.join().unwrap();
    });
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn verify_finds_what_changed_since() {
    let (cache, file) = (Cache::new(), weights(1));
    let server = Server::start(file.clone(), "", []);
    let hub = Hub { offline: true, ..cache.hub(&server) };
    assert_eq!(hub.verify(&[], &Quiet).unwrap(), []);
    let fault = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let checked = hub.verify(&names, &Quiet).unwrap();
        assert_eq!(checked.len(), 1, "{checked:?}");
        assert_eq!(checked[0].name, NAME);
        checked[0].fault.clone()
    };
    #[track_caller]
    fn says(fault: Option<String>, words: &[&str]) {
        let fault = fault.expect("found sound");
        assert!(words.iter().all(|word| fault.contains(word)), "{fault}");
    }
    says(fault(&[NAME]), &["was not pulled", &format!("weights pull {NAME}")]);

    let pulled = cache.hub(&server).pull(&SOURCE, false, &Quiet).unwrap();
    assert_eq!(fault(&[]), None);
    assert_eq!(fault(&[NAME]), None);
    let sound = fs::read(&pulled.path).unwrap();
    let spoilt = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes
    };

    fs::write(cache.at("model.safetensors"), spoilt(&file)).unwrap();
    says(
        fault(&[]),
        &["model.safetensors", &pulled.record.sha256, "recorded at the first pull", "fetches them again"],
    );
    fs::remove_file(cache.at("model.safetensors")).unwrap();
    says(fault(&[]), &["gone", "weights pull"]);
    fs::write(cache.at("model.safetensors"), &file).unwrap();

    fs::write(&pulled.path, spoilt(&sound)).unwrap();
    says(fault(&[]), &[".penjing", "damaged", "makes the model again"]);
    let other = Cache::new();
    let theirs = other.hub(&Server::start(weights(2), "", [])).pull(&SOURCE, false, &Quiet).unwrap();
    fs::copy(theirs.path, &pulled.path).unwrap();
    says(fault(&[]), &["was not made of these weights"]);
    fs::write(&pulled.path, sound).unwrap();
    assert_eq!(fault(&[]), None);

    fs::write(cache.at("source.lock"), "{}").unwrap();
    says(fault(&[]), &["source.lock", "is damaged", "--update"]);
    refused(cache.hub(&server).pull(&SOURCE, false, &Quiet), &["source.lock", "--update"]);
    fs::remove_file(cache.at("source.lock")).unwrap();
    says(fault(&[]), &["was not pulled"]);
    assert_eq!(server.asked().len(), 1, "verify asked the hub");
}
