//! The `penjing` command.
#![forbid(unsafe_code)]

mod commands;
mod console;

use std::process::ExitCode;

use clap::Parser;

use commands::{Cli, Outcome};
use console::Console;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let console = Console::new(cli.json, cli.quiet);
    match commands::run(cli, &console) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        // What failed has been named on the way.
        Ok(Outcome::SomeFailed) => ExitCode::from(1),
        Err(error) if matches!(error.downcast_ref(), Some(penjing::Error::Interrupted)) => {
            console.say("interrupted");
            ExitCode::from(130)
        }
        Err(error) if error.is::<clap::Error>() => {
            let _ = error.downcast_ref::<clap::Error>().map(clap::Error::print);
            ExitCode::from(2)
        }
        // Whoever read the output has gone away; that is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Errors of the library have their cause in their words already.
            let ours = error.downcast_ref::<penjing::Error>().map(ToString::to_string);
            console.error(&ours.unwrap_or_else(|| format!("{error:#}")));
            ExitCode::from(1)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
