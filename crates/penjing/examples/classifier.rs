//! Photos in, a classifier out, in ten lines: `cargo run --release --example classifier -- TRAIN TEST MODEL`,
//! where TRAIN and TEST hold one folder of photos per class (`cargo xtask demo` makes such folders).

use std::path::PathBuf;

use penjing::{
    Result,
    classifier::Classifier,
    data::Dataset,
    eval, model,
    progress::Quiet,
    threads::Threads,
    transfer::{self, plan::RecipeKind},
};

fn main() -> Result<()> {
    let [train, test, output] =
        [1, 2, 3].map(|n| PathBuf::from(std::env::args_os().nth(n).unwrap_or_default()));
    let threads = Threads::new(None)?;
    let output = model::Output::new(&output, true)?;
    let photos = Dataset::open(&train, None)?;
    let backbone = model::bundled().expect("built with the backbone");
    let options = transfer::Options { recipe: RecipeKind::Head, ..Default::default() };
    let trained = transfer::train(&photos, &backbone, &options, &threads, &Quiet, None)?;
    let unseen = Dataset::open(&test, None)?;
    let judged =
        eval::evaluate(&Classifier::new(&trained.model)?, &unseen, unseen.samples.iter(), &threads, &Quiet)?;
    println!("validation {:.1} %, test {:.1} %", 100.0 * trained.val_top1, 100.0 * judged.top1);
    output.save(&trained.model)?;
    Ok(())
}
