//! The command line: one file a verb.

mod bench;
mod classify;
mod compress;
mod eval;
mod export;
mod inspect;
mod shell;
mod train;
mod units;
mod weights;

use std::path::{Path, PathBuf};

use clap::{
    CommandFactory as _, Parser, Subcommand,
    builder::{PathBufValueParser, TypedValueParser},
    error::ErrorKind,
};
use penjing::{
    Error,
    costs::Costs,
    data::Skipped,
    model::Model,
    threads::Threads,
    zoo::{self, Arch, Config, Network},
};
use penjing_runtime::{
    file::{Calibration, Provenance},
    pixels::DecodeRule,
};

use crate::console::Console;

/// Photos in, a small, fast, trustworthy image classifier out.
#[derive(Debug, Parser)]
#[command(name = "penjing", version, arg_required_else_help = true, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 the work failed or an input could not be used; 2 wrong usage; \
                        130 interrupted."
)]
pub struct Cli {
    /// One JSON document on stdout, nothing else
    #[arg(long, global = true, display_order = 100)]
    pub json: bool,
    /// Nothing on stderr but errors
    #[arg(long, short, global = true, display_order = 101)]
    pub quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Train(train::Args),
    Eval(eval::Args),
    Classify(classify::Args),
    Compress(compress::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Export(export::Args),
    Weights(weights::Args),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// How a verb ended that did not fail as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was done.
    Done,
    /// Some inputs could not be used, or a gate was missed; each has been named.
    SomeFailed,
}

/// Runs the verb.
pub fn run(cli: Cli, console: &Console) -> anyhow::Result<Outcome> {
    match cli.verb {
        Verb::Train(args) => train::run(args, console),
        Verb::Eval(args) => eval::run(args, console),
        Verb::Classify(args) => classify::run(args, console),
        Verb::Compress(args) => compress::run(args, console),
        Verb::Inspect(args) => inspect::run(args, console),
        Verb::Bench(args) => bench::run(args, console),
        Verb::Export(args) => export::run(args, console),
        Verb::Weights(args) => weights::run(args, console),
        Verb::Completions(args) => shell::completions(args),
        Verb::Man(args) => shell::man(args),
    }
}

/// How many threads to use.
#[derive(Clone, Copy, Debug, clap::Args)]
struct ThreadsArg {
    /// Threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

impl ThreadsArg {
    fn start(self) -> penjing::Result<Threads> {
        Threads::new(self.threads.map(usize::from))
    }
}

/// How a network is run on the machine of a file of costs.
#[derive(Clone, Debug, clap::Args)]
struct ElsewhereArgs {
    /// Threads that share a photo on the machine of --cost [default: as many as the steps of its file were timed with]
    #[arg(long, value_name = "N", requires = "cost", value_parser = clap::value_parser!(u16).range(1..=256))]
    cost_threads: Option<u16>,
    /// The instruction set that runs there [default: that with which the steps were timed]
    #[arg(long, value_name = "ISA", requires = "cost")]
    cost_isa: Option<String>,
}

impl ElsewhereArgs {
    /// What is taken there, if there is such a file.
    fn costs(&self, file: Option<&Path>) -> penjing::Result<Option<Costs>> {
        let way = (self.cost_isa.as_deref(), self.cost_threads.map(usize::from));
        let read =
            |path: &Path| Costs::load(path)?.run_by(way.0, way.1).map_err(|what| Error::model(path, what));
        file.map(read).transpose()
    }
}

/// Reads an input size in pixels.
fn size_parser() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u16).range(32..=2048).map(usize::from)
}

/// Reads the name of a network, or of a file that declares one; what is in the file is judged later.
fn arch_parser(name: &str) -> Result<String, String> {
    match Network::file(name) {
        Some((path, _)) if path.is_file() => Ok(name.to_string()),
        Some((path, _)) => Err(format!("there is no file {}", path.display())),
        None => published_parser(name),
    }
}

/// Reads the name of a network whose weights are published.
fn published_parser(name: &str) -> Result<String, String> {
    let known = Arch::named(name).and_then(|(arch, width)| arch.graph(&Config { width, ..arch.config(1) }));
    known.map(|_| name.to_string()).map_err(|error| error.to_string())
}

/// The network whose weights are inside the program.
const INSIDE: &str = "efficientnet_lite0";

/// Reads a backbone: a model file, the name of a network, or a file that declares one.
fn backbone_parser() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let declared = path.to_str().and_then(Network::file).is_some_and(|(file, _)| file.is_file());
        if path.exists() || declared || published(&path).is_some() {
            return Ok(path);
        }
        Err(format!("no such file; expected a model file, {INSIDE}, or a network that was pulled"))
    })
}

/// How JPEG files are decoded.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Decode {
    /// At the least scale of 1/8, 1/4, 1/2 and 1 that leaves twice the pixels that the network sees each way
    Reduced,
    /// At full scale
    Full,
}

impl From<Decode> for DecodeRule {
    fn from(decode: Decode) -> Self {
        match decode {
            Decode::Reduced => DecodeRule::REDUCED,
            Decode::Full => DecodeRule::Full,
        }
    }
}

/// The network of this name in the list, unless another file is called so.
fn published(path: &Path) -> Option<&'static Arch> {
    if path.exists() && path.as_os_str() != INSIDE {
        return None;
    }
    Arch::named(path.to_str()?).ok().map(|(arch, _)| arch)
}

/// The network that is meant by its name or by the file that declares it. `None` for a model file.
fn network(path: &Path) -> penjing::Result<Option<Network>> {
    match path.to_str() {
        Some(name) if Network::file(name).is_some() || published(path).is_some() => {
            Network::named(name).map(Some)
        }
        _ => Ok(None),
    }
}

/// The model that `penjing weights pull` left in the cache under this name.
fn pulled(name: &str) -> Option<PathBuf> {
    #[cfg(feature = "pull")]
    {
        penjing::hub::installed(name)
    }
    #[cfg(not(feature = "pull"))]
    {
        let _ = name;
        None
    }
}

/// The names under which `penjing weights pull` has left models in the cache.
fn all_pulled() -> Vec<&'static str> {
    #[cfg(feature = "pull")]
    {
        penjing::hub::SOURCES.iter().map(|source| source.name).filter(|name| pulled(name).is_some()).collect()
    }
    #[cfg(not(feature = "pull"))]
    {
        Vec::new()
    }
}

/// Whether there are weights of this name to be pulled.
fn can_be_pulled(name: &str) -> bool {
    #[cfg(feature = "pull")]
    {
        penjing::hub::Source::named(name).is_ok()
    }
    #[cfg(not(feature = "pull"))]
    {
        let _ = name;
        false
    }
}

/// Why the pretrained weights of this backbone cannot be had, if it is a name or a declaration only.
fn without_weights(path: &Path) -> Option<String> {
    let name = path.to_str()?;
    if Network::file(name).is_some() {
        return Some(format!(
            "{name} declares a network and holds no weights; learn all from your photos with --recipe scratch"
        ));
    }
    let arch = published(path).filter(|_| path.as_os_str() != INSIDE)?;
    if pulled(name).is_some() {
        return None;
    }
    let fetch = match can_be_pulled(name) {
        true => format!("fetch them with `penjing weights pull {name}`, or "),
        false => String::new(),
    };
    Some(format!(
        "the weights of {} are not inside this program; {fetch}bring them with `penjing weights import FILE --arch {name} \
         -o {name}.penjing` and give that file as --backbone, or learn all from your photos with --recipe scratch",
        arch.name
    ))
}

/// The backbone that was given, or else the one inside the program.
fn backbone(given: Option<&Path>) -> penjing::Result<Model> {
    match given {
        Some(path) if path.as_os_str() != INSIDE => {
            let pulled = published(path).and_then(|_| pulled(path.to_str()?));
            penjing::model::load(pulled.as_deref().unwrap_or(path))
        }
        _ => penjing::model::bundled().ok_or_else(|| {
            penjing::Error::Unsupported(
                "this penjing was built without a backbone; give a model file as --backbone".into(),
            )
        }),
    }
}

/// The network of that backbone with random weights, of which nothing is pretrained.
fn untrained(given: Option<&Path>) -> penjing::Result<Model> {
    const CLASSES: usize = 2;
    let unsupported = |error: penjing_runtime::Error| penjing::Error::Unsupported(error.to_string());
    let given = given.unwrap_or(Path::new(INSIDE));
    let provenance = Provenance {
        penjing: env!("CARGO_PKG_VERSION").into(),
        backbone: "none".into(),
        license: "none".into(),
        backbone_hash: String::new(),
        recipe: Vec::new(),
        data_hash: None,
        seed: None,
        val_top1: None,
    };
    let Some(network) = network(given)? else {
        let model = penjing::model::load(given)?;
        let weights = zoo::random_weights(&model.graph, 0);
        return Ok(Model { weights, provenance, ..model });
    };
    let graph = network.graph(network.size(), CLASSES)?;
    let model = Model {
        arch: network.name(),
        weights: zoo::random_weights(&graph, 0),
        graph,
        pixels: network.pixels(network.size()),
        labels: (0..CLASSES).map(|class| class.to_string()).collect(),
        calibration: Calibration { temperature: 1.0 },
        provenance,
    };
    model.check().map_err(unsupported)?;
    Ok(model)
}

/// What the parser of arguments says when flags of `verb` do not go together.
fn refuse(verb: &str, why: &str) -> clap::Error {
    let mut command = Cli::command();
    command.build();
    let command = command.find_subcommand_mut(verb);
    command.map_or_else(
        || clap::Error::raw(ErrorKind::ArgumentConflict, why),
        |command| command.error(ErrorKind::ArgumentConflict, why),
    )
}

/// Fails where a state of `work` lies that nobody asked to throw away.
fn spare(part: &Path, force: bool, work: &str) -> penjing::Result<()> {
    if force || !part.exists() {
        return Ok(());
    }
    let what = format!(
        "is the state of unfinished {work}, of which there is none now; repeat its command to go on with it, or give --force \
         to throw it away"
    );
    Err(Error::data(part, what))
}

/// Fails where the output is also what the work begins with, or a teacher: it could not be repeated, nor interrupted and go on.
fn require_apart(output: &Path, needed: Option<&Path>, what: &str) -> penjing::Result<()> {
    // Of what is not there yet the folder is.
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        path.canonicalize().ok().or_else(|| Some(folder.canonicalize().ok()?.join(path.file_name()?)))
    };
    if needed.is_some_and(|needed| place(needed).is_some_and(|needed| place(output) == Some(needed))) {
        return Err(Error::data(output, format!("is {what}; name another file to write")));
    }
    Ok(())
}

/// Says from where interrupted training goes on, if it has kept a state.
fn say_resumable(part: &Path, console: &Console) {
    if part.is_file() {
        console.say(&format!("{}: the training so far; the same command goes on from there", part.display()));
    }
}

/// Names the photos that could not be used; of many, the first ones.
fn say_skipped(skipped: &[Skipped], console: &Console) {
    const MOST: usize = 10;
    for skipped in skipped.iter().take(MOST) {
        console.say(&format!("skipped {}: {}", skipped.path.display(), skipped.why));
    }
    if skipped.len() > MOST {
        console.say(&format!("skipped {} more; --json names all", skipped.len() - MOST));
    }
}
