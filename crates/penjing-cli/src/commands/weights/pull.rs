//! `penjing weights pull` and `verify`.

use std::path::{Path, PathBuf};

use penjing::{
    Error,
    data::displayed,
    hub::{Hub, Source},
    model::Output,
};

use super::super::Outcome;
use crate::console::{Console, bytes};

/// Fetch published weights into the cache, as a backbone. The only command that opens a connection
///
/// The first pull of a file whose hash nobody has verified records its commit and hash; later ones ask for that commit
/// and enforce that hash. Proxies of the environment are used (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
#[derive(Debug, clap::Args)]
pub struct Pull {
    /// The weights, such as mobilenet_v2 or mobilenet_v2_x0.5
    #[arg(value_name = "NAME", value_parser = source_parser)]
    name: &'static Source,
    /// Write the model to this file too
    #[arg(long, short, value_name = "MODEL")]
    output: Option<PathBuf>,
    /// Open no connection: what is not in the cache is an error
    #[arg(long)]
    offline: bool,
    /// Forget the commit and the hash of the first pull, and take what the hub has now
    #[arg(long, conflicts_with = "offline")]
    update: bool,
    /// Overwrite the output
    #[arg(long, requires = "output")]
    force: bool,
}

/// Check what was pulled against the hashes recorded at the first pull
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The weights [default: all that were pulled]
    #[arg(value_name = "NAME", value_parser = source_parser)]
    names: Vec<&'static Source>,
}

/// Reads the name of weights that can be pulled.
fn source_parser(name: &str) -> Result<&'static Source, String> {
    Source::named(name).map_err(|error| error.to_string())
}

#[derive(serde::Serialize)]
struct Report<'a> {
    name: &'a str,
    #[serde(serialize_with = "displayed")]
    model: &'a Path,
    arch: &'a str,
    license: &'a str,
    repository: &'a str,
    /// What the hub calls the state of the repository, if it told.
    commit: Option<&'a str>,
    file: &'a str,
    file_bytes: u64,
    sha256: &'a str,
    /// Whether the hash was recorded now.
    recorded: bool,
    /// Bytes that came over the network; `null` where no connection was opened.
    received_bytes: Option<u64>,
}

pub fn pull(args: Pull, console: &Console) -> anyhow::Result<Outcome> {
    let source = args.name;
    let output = args.output.as_deref().map(|path| Output::new(path, args.force)).transpose()?;
    let hub = Hub::from_env(args.offline)?;
    let pulled = hub.pull(source, args.update, console);
    if matches!(pulled, Err(Error::Interrupted)) {
        console.say("what has arrived is kept; the same command goes on from there");
    }
    let pulled = pulled?;
    if let Some(output) = &output {
        output.save(&pulled.model)?;
    }
    let record = &pulled.record;
    let report = Report {
        name: source.name,
        model: output.as_ref().map_or(&pulled.path, |output| output.path()),
        arch: &pulled.model.arch,
        license: &record.license,
        repository: &record.repository,
        commit: record.commit.as_deref(),
        file: &record.file,
        file_bytes: record.bytes,
        sha256: &record.sha256,
        recorded: pulled.first,
        received_bytes: pulled.received,
    };
    console.result(&report, || describe(&report, &pulled.model.provenance.backbone))?;
    Ok(Outcome::Done)
}

fn describe(report: &Report, origin: &str) -> String {
    let Report { name, license, sha256, .. } = report;
    let came = match report.received_bytes {
        None => "already here, no connection was opened".to_string(),
        Some(received) if received == report.file_bytes => format!("{} came", bytes(received)),
        Some(received) => {
            format!("{} of {} came, the rest was here", bytes(received), bytes(report.file_bytes))
        }
    };
    let recorded = if report.recorded { ", recorded now and enforced from now on" } else { "" };
    format!(
        "{name}: {came}\nsource   {origin}\nlicence  {license}\nSHA-256  {sha256}{recorded}\nmodel    {}\n\
         penjing train PHOTOS --backbone {name} -o MODEL learns from it\n",
        report.model.display()
    )
}

pub fn verify(args: &Verify, console: &Console) -> anyhow::Result<Outcome> {
    let names: Vec<String> = args.names.iter().map(|source| source.name.to_string()).collect();
    let checked = Hub::from_env(true)?.verify(&names, console)?;
    for checked in &checked {
        if let Some(fault) = &checked.fault {
            console.error(&format!("{}: {fault}", checked.name));
        }
    }
    console.result(&checked, || {
        let line = |name: &str, good: bool| format!("{name}: {}\n", if good { "sound" } else { "NOT sound" });
        let lines = checked.iter().map(|checked| line(&checked.name, checked.fault.is_none()));
        if checked.is_empty() { "nothing was pulled yet\n".to_string() } else { lines.collect() }
    })?;
    let good = checked.iter().all(|checked| checked.fault.is_none());
    Ok(if good { Outcome::Done } else { Outcome::SomeFailed })
}
