//! Backbones from a hub; and that nothing else asks one.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    hub::{Server, Turn},
    hub_weights::state_dict,
    support::{Place, QUICK, Ran},
};

const NAME: &str = "mobilenet_v2_x0.5";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Variables that would lead requests elsewhere, or change whom they trust.
const ELSEWHERE: [&str; 9] = [
    "SSL_CERT_FILE",
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
];

fn weights() -> Vec<u8> {
    state_dict(NAME, 3, 1)
}

fn command(place: &Place, hub: &str, args: &[&str]) -> Command {
    let mut command = place.command(args);
    command.env("PENJING_HUB", hub);
    for name in ELSEWHERE {
        command.env_remove(name);
    }
    command
}

#[track_caller]
fn finish(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[track_caller]
fn run(place: &Place, hub: &str, args: &[&str]) -> Ran {
    finish(command(place, hub, args))
}

#[test]
fn a_pulled_network_is_a_backbone_by_its_name() {
    let place = Place::new();
    place.photos("photos", &["a", "b"], 3);
    let train = |model| ["train", "photos", "-o", model, "--recipe", "head", "--backbone", NAME];
    let refused = place.run(&train("m.penjing"));
    refused
        .refused(2, &["not inside this program", &format!("penjing weights pull {NAME}"), "weights import"]);

    let said = format!("X-Repo-Commit: {COMMIT}\r\n");
    let server = Server::start(weights(), &said, [Turn::Cut(100_000)]);
    let ran = run(&place, &server.url, &["weights", "pull", NAME, "--json"]);
    let report = ran.json();
    ran.says(&["connection was cut", "try 2 of 5 in 1 s"]);
    assert_eq!(server.asked().len(), 2);
    assert_eq!(server.asked()[1].range.as_deref(), Some("bytes=100000-"));
    assert_eq!(report["name"], NAME);
    assert_eq!(report["license"], "Apache-2.0");
    assert_eq!((&report["commit"], &report["recorded"]), (&COMMIT.into(), &true.into()));
    assert_eq!(report["received_bytes"], weights().len());
    let model = place.at(&format!("cache/hub/{NAME}/{NAME}.penjing"));
    assert_eq!(report["model"], model.to_str().unwrap());

    // The cache is enough from here on: no hub answers at this address.
    let gone = "http://127.0.0.1:1";
    for args in
        [&["weights", "pull", NAME][..], &["weights", "pull", NAME, "--offline", "-o", "copy.penjing"]]
    {
        let ran = run(&place, gone, args);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        for word in ["already here", "timm/mobilenetv2_050.lamb_in1k@0123456", "Apache-2.0", "SHA-256"] {
            assert!(ran.out.contains(word), "{word}: {ran:?}");
        }
    }
    assert_eq!(place.read("copy.penjing"), std::fs::read(&model).unwrap());
    let ran = place.run(&[&train("m.penjing")[..], QUICK].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let inspected = place.run(&["inspect", "m.penjing"]).out;
    for word in ["timm/mobilenetv2_050.lamb_in1k@0123456", "Apache-2.0", NAME] {
        assert!(inspected.contains(word), "{word}: {inspected}");
    }
    // A file of that name is what is meant, where there is one.
    place.write(NAME, "no model");
    place.run(&train("n.penjing")).refused(1, &[NAME, "not a penjing model"]);
}

#[test]
fn verify_names_what_is_not_sound() {
    let place = Place::new();
    let verified = run(&place, "", &["weights", "verify"]);
    assert_eq!((verified.code, verified.out.as_str()), (Some(0), "nothing was pulled yet\n"));
    run(&place, "", &["weights", "verify", NAME]).says(&[NAME, "was not pulled", "weights pull"]);

    let server = Server::start(weights(), "", []);
    run(&place, &server.url, &["weights", "pull", NAME, "--json"]).json();
    let verified = run(&place, "", &["weights", "verify", "--json"]).json();
    assert_eq!(verified, serde_json::json!([{ "name": NAME, "fault": null }]));
    let file = format!("cache/hub/{NAME}/model.safetensors");
    let mut bytes = place.read(&file);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    place.write(&file, bytes);
    let verified = run(&place, "", &["weights", "verify"]);
    assert_eq!(verified.code, Some(1), "{verified:?}");
    verified.says(&[NAME, "model.safetensors", "recorded at the first pull", "penjing weights pull"]);
    assert!(verified.out.contains("NOT sound"), "{verified:?}");
    assert_eq!(server.asked().len(), 1, "verify asked the hub");
    assert_eq!(run(&place, &server.url, &["weights", "pull", NAME]).code, Some(0));
    assert_eq!(run(&place, "", &["weights", "verify"]).code, Some(0));
}

#[test]
fn what_cannot_be_pulled_is_said_before_anybody_is_asked() {
    let (place, server) = (Place::new(), Server::start(weights(), "", []));
    place.write("old.penjing", "precious");
    for (code, args, words) in [
        (2, &["weights", "pull", "nonsense"][..], ["'nonsense'", "mobilenet_v2_x0.5"]),
        (2, &["weights", "pull", "../../etc"], ["'../../etc'", "mobilenet_v2"]),
        (2, &["weights", "pull"], ["<NAME>", "required"]),
        (2, &["weights", "pull", NAME, "--update", "--offline"], ["--update", "--offline"]),
        (2, &["weights", "pull", NAME, "--force"], ["--output", "required"]),
        (2, &["weights", "verify", "nonsense"], ["'nonsense'", "mobilenet_v2"]),
        (1, &["weights", "pull", NAME, "--offline"], ["not in the cache", "leave --offline out"]),
        (1, &["weights", "pull", NAME, "-o", "old.penjing"], ["old.penjing", "--force"]),
        (1, &["weights", "pull", NAME, "-o", "new/m.penjing"], ["new", "no such folder"]),
    ] {
        let ran = run(&place, &server.url, args);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{args:?}: {ran:?}");
        assert!(words.iter().all(|word| ran.err.contains(word)), "{args:?}: {}", ran.err);
    }
    for hub in ["nonsense", "ftp://host", "https://", "https://user:secret@host", "https://host/a b"] {
        run(&place, hub, &["weights", "pull", NAME]).refused(1, &["PENJING_HUB", "https://HOST/PATH"]);
    }
    assert_eq!(server.asked(), []);
    server.then([Turn::Status(404, "")]);
    run(&place, &server.url, &["weights", "pull", NAME, "--json"])
        .refused(1, &[&server.url, "timm/mobilenetv2_050.lamb_in1k", "404"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_has_arrived() {
    let (place, file) = (Place::new(), weights());
    let server = Server::start(file.clone(), "", [Turn::Stall(200_000)]);
    let child = command(&place, &server.url, &["weights", "pull", NAME, "--json"]).spawn().unwrap();
    let part = place.at(&format!("cache/hub/{NAME}/model.safetensors.part"));
    let began = Instant::now();
    while std::fs::metadata(&part).map_or(0, |part| part.len()) < 200_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("goes on from there"), "{output:?}");
    let report = run(&place, &server.url, &["weights", "pull", NAME, "--json"]).json();
    assert_eq!(report["received_bytes"], file.len() - 200_000);
}

/// A proxy that joins whoever asks with whom they ask for, and counts them.
fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let joined = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&joined);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && reader.read_until(b'\n', &mut head).unwrap() > 0 {}
            let head = String::from_utf8(head).unwrap();
            let target =
                head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let Ok(server) = TcpStream::connect(target) else { continue };
            count.fetch_add(1, Ordering::SeqCst);
            let mut back = client.try_clone().unwrap();
            back.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
            let mut up = server.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut reader, &mut up));
            std::thread::spawn(move || {
                let mut server = server;
                let _ = std::io::copy(&mut server, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
        }
    });
    (url, joined)
}

#[test]
fn proxies_and_authorities_of_the_environment_are_used() {
    let server = Server::start(weights(), "", []);
    let (proxy, joined) = proxy();
    let pull = |variables: &[(&str, &str)]| {
        let place = Place::new();
        let mut command = command(&place, &server.url, &["weights", "pull", NAME]);
        command.envs(variables.iter().copied());
        finish(command)
    };
    for (variables, through) in [
        (&[("HTTP_PROXY", &*proxy)][..], 1),
        (&[("all_proxy", &*proxy)], 1),
        (&[("HTTP_PROXY", &*proxy), ("NO_PROXY", "example.com,127.0.0.1")], 0),
    ] {
        let ran = pull(variables);
        assert_eq!(ran.code, Some(0), "{variables:?}: {ran:?}");
        assert_eq!(joined.swap(0, Ordering::SeqCst), through, "{variables:?}");
    }
    // A proxy that cannot be understood is not gone around.
    let asked = server.asked().len();
    pull(&[("HTTPS_PROXY", "http://")]).refused(1, &["HTTPS_PROXY", "names no proxy"]);
    let refusing = Server::start(Vec::new(), "", [Turn::Status(403, "")]);
    pull(&[("HTTPS_PROXY", &refusing.url)]).refused(1, &["the proxy refuses", "403"]);
    // Whom to trust must be readable, even where nothing is encrypted.
    pull(&[("SSL_CERT_FILE", "gone.pem")]).refused(1, &["SSL_CERT_FILE", "gone.pem", "No such file"]);
    pull(&[("SSL_CERT_FILE", "/dev/null")]).refused(1, &["SSL_CERT_FILE", "/dev/null", "no certificate"]);
    assert_eq!(server.asked().len(), asked);
}

/// The program's system calls about the network, run with the arguments; `None` where they cannot be watched.
#[cfg(target_os = "linux")]
fn network_calls(place: &Place, hub: &str, args: &[&str], input: Option<&[u8]>) -> Option<String> {
    let plain = command(place, hub, args);
    let log = place.at("calls");
    let mut watched = Command::new("strace");
    watched
        .args(["-f", "-e", "trace=network", "-o"])
        .arg(&log)
        .arg(plain.get_program())
        .args(plain.get_args());
    watched.current_dir(place.at("")).stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::piped());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => watched.env(name, value),
            None => watched.env_remove(name),
        };
    }
    // Without it the C library may ask a daemon for the user's folder, through a socket of this machine.
    watched.env("HOME", place.at(""));
    let mut child = watched.spawn().ok()?;
    child.stdin.take().unwrap().write_all(input.unwrap_or_default()).unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let status = child.wait().unwrap();
    if err.contains("ptrace") || err.contains("PTRACE") {
        return None;
    }
    assert_eq!(status.code(), Some(0), "{args:?}: {err}");
    Some(std::fs::read_to_string(&log).unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn nothing_but_pull_opens_a_socket() {
    let (place, server) = (Place::new(), Server::start(weights(), "", []));
    place.photos("photos", &["a", "b"], 6);
    place.photos("photos/test", &["a", "b"], 1);
    place.photos("data/train", &["a", "b"], 6);
    place.photos("data/test", &["a", "b"], 2);
    place.write("weights.safetensors", weights());
    let Some(calls) = network_calls(&place, &server.url, &["weights", "pull", NAME], None) else {
        println!("skipped: no strace that may watch system calls");
        return;
    };
    // The watch works: it sees the one verb that may.
    assert!(calls.contains("socket(AF_INET") && calls.contains("connect("), "{calls}");
    assert_eq!(server.asked().len(), 1);

    let whole = ["train", "data", "-o", "w.penjing", "--recipe", "finetune", "--epochs", "1", "--size", "32"];
    let verbs: [&[&str]; 17] = [
        &["train", "data", "-o", "m.penjing", "--recipe", "head", "--size", "64"],
        &[&whole[..], &["--backbone", NAME]].concat(),
        &["eval", "m.penjing", "data"],
        &["classify", "m.penjing", "data/test"],
        &["classify", "m.penjing", "-"],
        &["inspect", "m.penjing"],
        &["bench", "m.penjing", "--seconds", "0.1"],
        &["bench", "--arch", "mobilenet_v1_x0.25", "--size", "32", "--seconds", "0.1", "--train"],
        &["weights", "list"],
        &["weights", "import", "weights.safetensors", "--arch", NAME, "-o", "i.penjing"],
        &["weights", "verify"],
        &["weights", "pull", NAME],
        &["weights", "pull", NAME, "--offline"],
        &["completions", "bash"],
        &["man", "."],
        &["--help"],
        &["weights", "pull", "--help"],
    ];
    for verb in verbs {
        let photo = verb.contains(&"-").then(|| crate::support::photo(0, 1));
        let calls = network_calls(&place, &server.url, verb, photo.as_deref()).unwrap();
        assert!(!calls.contains("socket"), "penjing {verb:?}: {calls}");
    }
    assert_eq!(server.asked().len(), 1);
}
