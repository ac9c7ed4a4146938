//! HTTP. The only file that opens a connection.
//!
//! A request runs on a thread of its own and sends what arrives, so that whoever waits for it can be told to stop.

use std::{
    io::Read as _,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::Duration,
};

use ureq::{
    Agent, Proxy, Timeout,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::answer::Answer;

/// A question to a server.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub url: String,
    /// The first byte wanted, if the file is still what this tag names; otherwise the server sends all.
    pub from: Option<(u64, String)>,
    /// How long finding the server and connecting to it may take, each.
    pub connect: Duration,
    /// How long the server may be silent, then and whenever more is awaited.
    pub silence: Duration,
    /// Whether the proxies and authorities that the environment names are used.
    pub environment: bool,
}

/// What a request leads to: an answer, bytes if it comes with a file, and the end; or a failure at any point.
#[derive(Debug)]
pub(super) enum Event {
    Answer(Answer),
    Bytes(Vec<u8>),
    End,
    Failed(Failure),
}

/// Why there is no answer, or no end of it.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub what: String,
    /// Whether another try may go better.
    pub passing: bool,
}

/// Bytes that are read at once, and how many such pieces wait to be written.
const PIECE: usize = 64 << 10;
const PIECES: usize = 8;

/// Begins a request. Dropping the receiver gives it up.
pub(super) fn get(request: Request) -> Receiver<Event> {
    let (send, receive) = sync_channel(PIECES);
    let failed = send.clone();
    let started = std::thread::Builder::new().spawn(move || {
        if let Err(failure) = answer(&request, &send) {
            let _ = send.send(Event::Failed(failure));
        }
    });
    if let Err(error) = started {
        let what = format!("cannot start a thread: {error}");
        let _ = failed.send(Event::Failed(Failure { what, passing: false }));
    }
    receive
}

fn answer(request: &Request, send: &SyncSender<Event>) -> Result<(), Failure> {
    let agent = agent(request)?;
    let failure = |error| failure(error, request);
    // What is resumed and hashed is the file, not a compressed form of it.
    let mut asked = agent.get(&request.url).header("Accept-Encoding", "identity");
    if let Some((first, tag)) = &request.from {
        asked = asked.header("Range", format!("bytes={first}-")).header("If-Range", tag);
    }
    let mut response = asked.call().map_err(failure)?;
    let headers = response.headers().iter();
    let headers =
        headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_string())));
    let answer = Answer::new(response.status().as_u16(), headers);
    let has_file = matches!(answer.status, 200 | 206);
    if send.send(Event::Answer(answer)).is_err() || !has_file {
        return Ok(());
    }
    let mut body = response.body_mut().as_reader();
    loop {
        let mut piece = vec![0; PIECE];
        let count = body.read(&mut piece).map_err(|error| failure(error.into()))?;
        piece.truncate(count);
        let event = if count == 0 { Event::End } else { Event::Bytes(piece) };
        if send.send(event).is_err() || count == 0 {
            return Ok(());
        }
    }
}

fn agent(request: &Request) -> Result<Agent, Failure> {
    let roots = if request.environment { roots()? } else { RootCerts::WebPki };
    let config = Agent::config_builder()
        .user_agent(concat!("penjing/", env!("CARGO_PKG_VERSION")))
        // Whoever asks looks at each answer, redirects among them.
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(request.connect))
        .timeout_connect(Some(request.connect))
        .timeout_per_read(Some(request.silence))
        .proxy(if request.environment { proxy()? } else { None })
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    Ok(config.build().into())
}

/// The variables that may name a proxy, and how they are tried.
const PROXIES: [&str; 6] =
    ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// The proxy that the environment names. One that cannot be used is an error: going around it would tell the network what
/// the proxy was to keep from it.
fn proxy() -> Result<Option<Proxy>, Failure> {
    let set = PROXIES.iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let Some(name) = set else { return Ok(None) };
    Proxy::try_from_env().map(Some).ok_or_else(|| Failure {
        what: format!("{name} names no proxy; expected http://HOST:PORT"),
        passing: false,
    })
}

/// Whom to trust: Mozilla's list, or the certificates in the file that `SSL_CERT_FILE` names, as networks with an authority of
/// their own need.
fn roots() -> Result<RootCerts, Failure> {
    const MAX_BYTES: u64 = 16 << 20;
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) else {
        return Ok(RootCerts::WebPki);
    };
    let fault = |what: String| Failure {
        what: format!("SSL_CERT_FILE: {}: {what}", path.to_string_lossy()),
        passing: false,
    };
    let mut text = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text))
        .map_err(|error| fault(error.to_string()))?;
    let certificates: Vec<Certificate> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(fault("holds no certificate in PEM format".into()));
    }
    Ok(certificates.into())
}

fn failure(error: ureq::Error, request: &Request) -> Failure {
    use std::io::ErrorKind;
    let passing = match &error {
        // What is wrong with certificates comes as invalid data.
        ureq::Error::Io(error) => error.kind() != ErrorKind::InvalidData,
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        _ => false,
    };
    let what = match error {
        ureq::Error::Io(error) if error.to_string().contains("certificate") => format!(
            "{error}; where the network has an authority of its own, SSL_CERT_FILE names the file of its certificate"
        ),
        ureq::Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => "the connection was cut".into(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            format!("no connection within {} s", request.connect.as_secs_f32())
        }
        ureq::Error::Timeout(_) => format!("nothing came for {} s", request.silence.as_secs_f32()),
        ureq::Error::HostNotFound => "no such host, or no network".into(),
        ureq::Error::ConnectProxyFailed(what) => format!("the proxy refuses: {what}"),
        other => other.to_string(),
    };
    Failure { what, passing }
}
