//! `cargo xtask fuzz`: every fuzz target for a while.

use anyhow::{Result, bail};

use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only this target (all by default)
    target: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    if !process::root().join("fuzz/Cargo.toml").exists() {
        bail!("there is no fuzz/Cargo.toml, so there is nothing to fuzz");
    }
    process::ensure_cargo_tool("fuzz", "~0.13")?;
    let targets = match &args.target {
        Some(target) => target.clone(),
        None => process::output(&mut cargo_fuzz(&["list"]))?,
    };
    for target in targets.split_whitespace() {
        println!("== {target}: {} s", args.seconds);
        // What is found is added to the first folder, seeds are only read.
        let [corpus, seeds] = ["corpus", "seeds"].map(|kind| format!("fuzz/{kind}/{target}"));
        std::fs::create_dir_all(process::root().join(&corpus))?;
        let mut words = vec!["run", target, &corpus];
        if process::root().join(&seeds).exists() {
            words.push(&seeds);
        }
        let limit = format!("-max_total_time={}", args.seconds);
        words.extend(["--", &limit, "-rss_limit_mb=2048"]);
        process::run(&mut cargo_fuzz(&words))?;
    }
    Ok(())
}

/// The sanitizers are unstable flags of rustc; `RUSTC_BOOTSTRAP` lets the stable compiler take them.
fn cargo_fuzz(args: &[&str]) -> std::process::Command {
    let mut command = process::cargo(std::iter::once("fuzz").chain(args.iter().copied()));
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}
