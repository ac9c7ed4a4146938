//! `cargo xtask check`: everything a contribution must pass. CI calls exactly this.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{docs, floors, process, spills};

#[derive(clap::Args)]
pub struct Args {
    /// Leave out the licences and sources of dependencies
    #[arg(long)]
    no_deny: bool,
}

/// A step, the command that repeats it alone, and its work.
struct Step {
    name: &'static str,
    command: &'static str,
    work: Work,
}

enum Work {
    /// Run the command with these variables set.
    Command(&'static [(&'static str, &'static str)]),
    /// Run the command and count the tests.
    Tests,
    /// What the command would do, done here.
    Here(fn() -> Result<()>),
}

const STEPS: &[Step] = &[
    Step { name: "format", command: "cargo fmt --all --check", work: Work::Command(&[]) },
    Step { name: "floors", command: "cargo xtask floors", work: Work::Here(floors::run) },
    Step {
        name: "clippy",
        command: "cargo clippy --workspace --all-targets --locked -- -D warnings",
        work: Work::Command(&[]),
    },
    Step {
        name: "kernels without std",
        command: "cargo clippy -p penjing-kernels --no-default-features --locked -- -D warnings",
        work: Work::Command(&[]),
    },
    Step {
        name: "runtime without a heap",
        command: "cargo clippy -p penjing-runtime --no-default-features --locked -- -D warnings",
        work: Work::Command(&[]),
    },
    Step {
        name: "runtime without files",
        command: "cargo clippy -p penjing-runtime --no-default-features --features alloc --locked -- -D warnings",
        work: Work::Command(&[]),
    },
    Step {
        name: "penjing without the backbone",
        command: "cargo clippy -p penjing-cli --no-default-features --locked -- -D warnings",
        work: Work::Command(&[]),
    },
    Step {
        name: "tests",
        command: "cargo test --workspace --locked --no-fail-fast -- --show-output",
        work: Work::Tests,
    },
    Step {
        name: "rustdoc",
        command: "cargo doc --workspace --no-deps --locked --quiet",
        work: Work::Command(&[("RUSTDOCFLAGS", "-D warnings")]),
    },
    Step { name: "registers", command: "cargo xtask spills", work: Work::Here(spills::run) },
    Step { name: "guides", command: "cargo xtask docs", work: Work::Here(docs::run) },
];

const DENY: Step = Step { name: "dependencies", command: DENY_COMMAND, work: Work::Here(deny) };
/// Without the advisories, whose database has to be fetched from elsewhere.
const DENY_COMMAND: &str = "cargo deny check --hide-inclusion-graph licenses bans sources";

pub fn run(args: &Args) -> Result<()> {
    let began = Instant::now();
    let mut tests = Tally::default();
    for step in STEPS.iter().chain((!args.no_deny).then_some(&DENY)) {
        println!("== {}: {}", step.name, step.command);
        let step_began = Instant::now();
        let done = match step.work {
            Work::Command(variables) => {
                spoken(step.command, variables).and_then(|mut c| process::run(&mut c))
            }
            Work::Tests => count_tests(step.command, &mut tests),
            Work::Here(work) => work(),
        };
        let seconds = step_began.elapsed().as_secs_f64();
        if let Err(error) = done {
            bail!("{} failed after {seconds:.1} s: {error:#}\nrepeat it alone: {}", step.name, repeat(step));
        }
        println!("== {}: {seconds:.1} s\n", step.name);
    }
    println!("check passed in {:.0} s; of the tests:", began.elapsed().as_secs_f64());
    println!("{tests}");
    Ok(())
}

fn repeat(step: &Step) -> String {
    let Work::Command(variables) = step.work else { return step.command.to_owned() };
    let variables = variables.iter().map(|(name, value)| format!("{name}='{value}' "));
    variables.chain([step.command.to_owned()]).collect()
}

/// The process of a command that begins with `cargo` and needs no quotes.
fn spoken(command: &str, variables: &[(&str, &str)]) -> Result<std::process::Command> {
    let words = command.strip_prefix("cargo ").with_context(|| format!("`{command}` is none of cargo's"))?;
    let mut command = process::cargo(words.split_whitespace());
    command.envs(variables.iter().copied());
    Ok(command)
}

fn deny() -> Result<()> {
    process::ensure_cargo_tool("deny", "~0.20")?;
    process::run(&mut spoken(DENY_COMMAND, &[])?)
}

/// How many tests ended how, by what cargo's `test result:` lines say and the tests that say `skipped: …`.
#[derive(Default, Debug, PartialEq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Passed for want of the data they need; counted in `passed` too.
    skipped: u64,
}

impl Tally {
    fn add(&mut self, line: &str) {
        self.skipped += u64::from(line.starts_with("skipped: "));
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let Some((count, kind)) = part.trim().split_once(' ') else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match kind {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed.saturating_sub(self.skipped), self.failed)?;
        for (count, kind) in [(self.skipped, "skipped"), (self.ignored, "ignored")] {
            if count > 0 {
                write!(f, ", {count} {kind}")?;
            }
        }
        Ok(())
    }
}

fn count_tests(command: &str, tally: &mut Tally) -> Result<()> {
    let mut child = spoken(command, &[])?.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("no output of the tests")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        tally.add(&line);
        println!("{line}");
    }
    let status = child.wait()?;
    if !status.success() || tally.failed > 0 {
        bail!("{tally}; `{command}` ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.50s",
        );
        tally.add("test a::b ... ok");
        tally.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.add("skipped: no photos in ../data");
        assert_eq!(tally, Tally { passed: 15, failed: 2, ignored: 1, skipped: 1 });
        assert_eq!(tally.to_string(), "14 passed, 2 failed, 1 skipped, 1 ignored");
        assert_eq!(Tally { passed: 3, ..Tally::default() }.to_string(), "3 passed, 0 failed");
    }

    #[test]
    fn every_step_can_be_typed() {
        for step in STEPS.iter().chain([&DENY]) {
            assert!(spoken(step.command, &[]).is_ok(), "{}", step.name);
            assert!(!step.command.contains(['\'', '"']), "{}", step.name);
        }
    }
}
