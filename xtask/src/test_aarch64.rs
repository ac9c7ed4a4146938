//! `cargo xtask test-aarch64`: the kernels' tests on emulated aarch64 CPUs, and a look at their registers.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{process, spills};

/// Its C library comes with Rust's, and so does the linker: nothing but the emulator has to be installed.
const TARGET: &str = "aarch64-unknown-linux-musl";
const LINKER: &str = "rust-lld";
const EMULATOR: &str = "qemu-aarch64";
/// The plainest CPU of 64-bit boards, and all that QEMU can do.
const CPUS: &[&str] = &["cortex-a53", "max"];

pub fn run() -> Result<()> {
    ensure_emulator(EMULATOR)?;
    ensure_target()?;
    for cpu in CPUS {
        println!("== {cpu}");
        process::run(&mut tests(cpu))?;
    }
    spills::run_for_aarch64(TARGET)?;
    println!("the kernels' tests pass on {}", CPUS.join(" and "));
    Ok(())
}

fn tests(cpu: &str) -> Command {
    let mut command =
        process::cargo(["test", "--package", "penjing-kernels", "--lib", "--locked", "--target", TARGET]);
    let variable = |of: &str| format!("CARGO_TARGET_{}_{of}", TARGET.to_uppercase().replace('-', "_"));
    command.env(variable("LINKER"), LINKER);
    command.env(variable("RUNNER"), format!("{EMULATOR} -cpu {cpu}"));
    command
}

/// Fails with the command that installs it unless the program is there.
fn ensure_emulator(program: &str) -> Result<()> {
    let mut version = Command::new(program);
    version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    if version.status().is_err() {
        bail!(
            "{program} is missing; on Debian and Ubuntu: sudo apt-get install --no-install-recommends qemu-user"
        );
    }
    Ok(())
}

/// Installs the target's standard library unless the compiler has it.
fn ensure_target() -> Result<()> {
    let mut compiler = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    // They may say where its libraries lie.
    compiler.args(std::env::var("RUSTFLAGS").unwrap_or_default().split_whitespace());
    let folder = process::output(compiler.args(["--print", "target-libdir", "--target", TARGET]))?;
    if std::path::Path::new(folder.trim_end()).exists() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", TARGET]);
    eprintln!("the standard library of {TARGET} is missing: {}", process::shown(&add));
    process::run(&mut add).with_context(|| {
        format!("the compiler needs the standard library of {TARGET} in {}", folder.trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_emulator_is_said_with_its_package() {
        assert!(ensure_emulator("cargo").is_ok());
        let error = ensure_emulator("no-such-emulator").unwrap_err().to_string();
        assert!(error.starts_with("no-such-emulator is missing") && error.ends_with(" qemu-user"), "{error}");
    }

    #[test]
    fn tests_run_on_the_cpu() {
        let command = tests("cortex-a53");
        let runner =
            command.get_envs().find(|(name, _)| *name == "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER");
        let runner = runner.and_then(|(_, value)| value).unwrap_or_default();
        assert_eq!(runner, "qemu-aarch64 -cpu cortex-a53");
    }
}
