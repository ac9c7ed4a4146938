//! A hub on this machine that behaves as told, well or badly.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How one request is answered. After the last the server is well behaved.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The whole file, or the part that was asked for.
    Well,
    /// As `Well`, but the connection ends after so many bytes of the body.
    Cut(usize),
    /// As `Well`, but nothing more comes after so many bytes of the body.
    Stall(usize),
    /// As `Well`, in pieces of so many bytes with a pause before each.
    Trickle(usize, Duration),
    /// The connection is accepted, and that is all.
    Silence,
    /// This status, with further headers.
    Status(u16, &'static str),
    /// The whole file, whatever was asked for.
    IgnoreRange,
    /// Another part of the file than was asked for.
    WrongPart,
    /// The whole file without its length; the end of the connection is the end.
    NoLength,
    /// More than was announced, in chunks that announce nothing.
    Chunked,
    /// The bytes are others from here on, and so is their tag.
    Change(Vec<u8>),
    /// The bytes are others, but nothing says so.
    Damage(Vec<u8>),
    /// These bytes instead of an answer.
    Raw(&'static [u8]),
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub line: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
}

/// A server, as long as the process lives.
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    file: Vec<u8>,
    tag: u32,
    /// Further headers of every answer.
    said: String,
    turns: VecDeque<Turn>,
    asked: Vec<Asked>,
}

impl Server {
    /// Serves `file` under every path, with further headers.
    pub fn start(file: Vec<u8>, said: &str, turns: impl IntoIterator<Item = Turn>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let turns = turns.into_iter().collect();
        let state = State { file, said: said.to_string(), turns, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    // A client that went away is no fault.
                    let _ = serve(stream, &state);
                });
            }
        });
        Server { url, state }
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// What comes next.
    pub fn then(&self, turns: impl IntoIterator<Item = Turn>) {
        self.state.lock().unwrap().turns.extend(turns);
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut asked = Asked { line: lines.next().unwrap_or(Ok(String::new()))?, range: None, if_range: None };
    for line in lines {
        let line = line?;
        match line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
            Some((name, value)) if name == "range" => asked.range = Some(value.to_string()),
            Some((name, value)) if name == "if-range" => asked.if_range = Some(value.to_string()),
            Some(_) => {}
            None => break,
        }
    }
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let turn = state.turns.pop_front().unwrap_or(Turn::Well);
    if let Turn::Change(bytes) | Turn::Damage(bytes) = &turn {
        state.tag += u32::from(matches!(turn, Turn::Change(_)));
        state.file = bytes.clone();
    }
    state.asked.push(asked.clone());
    let (file, tag, said) = (state.file.clone(), format!("\"{}\"", state.tag), state.said.clone());
    drop(state);
    answer(stream, &asked, &turn, &file, &tag, &said)
}

fn answer(
    mut stream: TcpStream,
    asked: &Asked,
    turn: &Turn,
    file: &[u8],
    tag: &str,
    said: &str,
) -> std::io::Result<()> {
    let whole = file.len();
    let from = asked
        .range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: Option<usize> = from.filter(|_| asked.if_range.as_deref().is_none_or(|theirs| theirs == tag));
    let from = from.filter(|_| !matches!(turn, Turn::IgnoreRange | Turn::NoLength | Turn::Chunked));
    let body = &file[from.unwrap_or(0).min(whole)..];
    let head = match from {
        Some(from) if from >= whole => {
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n".to_string()
        }
        Some(from) => {
            let from = from + usize::from(matches!(turn, Turn::WrongPart));
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{whole}\r\nContent-Length: {}\r\n",
                whole - 1,
                body.len()
            )
        }
        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {whole}\r\n"),
    };
    let head = format!("{head}ETag: {tag}\r\nConnection: close\r\n{said}\r\n");
    match turn {
        Turn::Well | Turn::IgnoreRange | Turn::WrongPart | Turn::Change(_) | Turn::Damage(_) => {
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)
        }
        Turn::Cut(bytes) => {
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body[..*bytes])
        }
        Turn::Stall(bytes) => {
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body[..*bytes])?;
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Turn::Trickle(bytes, pause) => {
            stream.write_all(head.as_bytes())?;
            for piece in body.chunks(*bytes) {
                std::thread::sleep(*pause);
                stream.write_all(piece)?;
            }
            Ok(())
        }
        Turn::Silence => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        Turn::Status(status, headers) => {
            let text = format!("HTTP/1.1 {status} Told So\r\nContent-Length: 3\r\n{headers}{said}\r\nno\n");
            stream.write_all(text.as_bytes())
        }
        Turn::NoLength => {
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{said}\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)
        }
        Turn::Chunked => {
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: {tag}\r\n{said}\r\n");
            stream.write_all(head.as_bytes())?;
            for piece in body.chunks(1000) {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")
        }
        Turn::Raw(bytes) => stream.write_all(bytes),
    }
}
