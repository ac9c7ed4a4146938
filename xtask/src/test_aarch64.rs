//! `cargo xtask test-aarch64`: the kernels' tests on emulated aarch64 CPUs, and a look at their registers.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{process, spills};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// Programs, and the packages of Debian and Ubuntu that bring them and the C library.
const PACKAGES: &[(&str, &str)] =
    &[(EMULATOR, "qemu-user"), (LINKER, "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")];
/// Where those packages put the C library.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
/// The plainest CPU of 64-bit boards, and all that QEMU can do.
const CPUS: &[&str] = &["cortex-a53", "max"];

pub fn run() -> Result<()> {
    ensure_programs(PACKAGES)?;
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
    command.env(variable("RUNNER"), format!("{EMULATOR} -cpu {cpu} -L {LIBRARIES}"));
    command
}

/// Fails with the command that installs what is missing.
fn ensure_programs(programs: &[(&str, &str)]) -> Result<()> {
    let is_missing = |program: &str| {
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let missing: Vec<_> = programs.iter().filter(|(program, _)| is_missing(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, packages)| *packages).collect();
    bail!(
        "{} missing; on Debian and Ubuntu: sudo apt-get install --no-install-recommends {}",
        names.join(" and "),
        packages.join(" ")
    )
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
    fn what_is_missing_is_said_with_its_packages() {
        assert!(ensure_programs(&[("cargo", "cargo")]).is_ok());
        let error = ensure_programs(&[("cargo", "cargo"), ("no-such-emulator", "emulators")]).unwrap_err();
        assert!(error.to_string().starts_with("no-such-emulator missing"), "{error}");
        assert!(error.to_string().ends_with("install --no-install-recommends emulators"), "{error}");
    }

    #[test]
    fn tests_run_on_the_cpu() {
        let command = tests("cortex-a53");
        let runner =
            command.get_envs().find(|(name, _)| *name == "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER");
        let runner = runner.and_then(|(_, value)| value).unwrap_or_default();
        assert_eq!(runner, "qemu-aarch64 -cpu cortex-a53 -L /usr/aarch64-linux-gnu");
    }
}
