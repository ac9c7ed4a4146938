//! Shell completions and manual pages, from the same definitions as the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, Outcome};

/// Print the completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: penjing completions bash > ~/.local/share/bash-completion/completions/penjing"
)]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write the manual pages into a folder
#[derive(Debug, clap::Args)]
pub struct Man {
    /// An existing folder; penjing.1, penjing-train.1 and so on are written there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub fn completions(args: Completions) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "penjing", &mut script);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
    Ok(Outcome::Done)
}

pub fn man(args: Man) -> anyhow::Result<Outcome> {
    clap_mangen::generate_to(Cli::command(), &args.folder)
        .with_context(|| format!("{}: cannot write manual pages", args.folder.display()))?;
    Ok(Outcome::Done)
}
