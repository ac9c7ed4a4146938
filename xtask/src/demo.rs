//! `cargo xtask demo`: the whole way on the embedded example, from packed photos to answers.

mod fashion;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::process;

pub use fashion::unpack;

/// One photo each of a class that is easy, one that is middling and the one that is hardest here.
const ASKED: [&str; 3] = ["Ankle boot/0001.png", "Dress/0002.png", "Shirt/0003.png"];

#[derive(clap::Args)]
pub struct Args {
    /// Folder for the photos and the model
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let dir = &args.dir;
    // Relative to the caller's folder, which cargo keeps for `cargo run`.
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let photos = unpack(dir, usize::MAX)?;
    println!("{photos} photos of Fashion-MNIST in 10 classes, under {}", dir.display());

    let binary = build_penjing()?;
    let model = dir.join("fashion.penjing");
    let (train, test) = (dir.join("train"), dir.join("test"));
    let penjing = |args: &[&Path]| {
        let mut command = Command::new(&binary);
        command.args(args).env("PENJING_CACHE", dir.join("cache")).stdin(Stdio::null());
        println!("\n$ {}", process::shown(&command));
        process::run(&mut command)
    };
    penjing(&["train".as_ref(), &train, "-o".as_ref(), &model, "--force".as_ref()])?;
    penjing(&["eval".as_ref(), &model, &test])?;
    penjing(&["inspect".as_ref(), &model])?;
    let [first, second, third] = ASKED.map(|photo| test.join(photo));
    penjing(&["classify".as_ref(), &model, &first, &second, &third])
}

/// Builds the release binary and returns its path.
pub fn build_penjing() -> Result<PathBuf> {
    let mut build = process::cargo(["build", "--release", "--locked", "-p", "penjing-cli"]);
    println!("$ {}", process::shown(&build));
    process::run(&mut build)?;
    Ok(process::release_dir().join(format!("penjing{}", std::env::consts::EXE_SUFFIX)))
}
