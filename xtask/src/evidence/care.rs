//! `cargo xtask evidence care`: what each care taken in making 8 bits is worth, on test photos.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{demo, process};

const MATRIX: &str = "care";

#[derive(clap::Args)]
pub struct Args {
    /// What the row of files is called, such as imagenet/mobilenet_v2
    #[arg(long, value_name = "SET/NETWORK", requires_all = ["model", "photos", "test"])]
    name: Option<String>,
    /// A model in floats
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Photos to watch: a folder with a sub-folder for each class
    #[arg(long, value_name = "DATA")]
    photos: Option<PathBuf>,
    /// Photos that judge, of no class folder's name that the model does not know
    #[arg(long, value_name = "DATA")]
    test: Option<PathBuf>,
}

/// Ways to make 8 bits, each with more care than the one before, and what asks `penjing compress` for them.
const WAYS: &[(&str, &[&str])] = &[
    ("a scale for each layer, whole ranges", &["--per-tensor", "--keep-biases", "--ranges", "min-max"]),
    ("+ equalized", &["--per-tensor", "--keep-biases", "--ranges", "min-max", "--equalize"]),
    ("+ biases corrected", &["--per-tensor", "--ranges", "min-max", "--equalize"]),
    ("a scale for each channel, whole ranges", &["--keep-biases", "--ranges", "min-max"]),
    ("+ biases corrected", &["--ranges", "min-max"]),
    ("the default", &[]),
];

pub fn run(args: &Args) -> Result<()> {
    if let (Some(name), Some(model), Some(photos), Some(test)) =
        (&args.name, &args.model, &args.photos, &args.test)
    {
        let measured = measure(name, model, photos, test)?;
        super::write(&super::folder(MATRIX).join(format!("{name}.json")), &measured)?;
        println!();
    }
    print!("{}", table(&super::read_all(&super::folder(MATRIX))?)?);
    Ok(())
}

fn measure(name: &str, model: &Path, photos: &Path, test: &Path) -> Result<Value> {
    let penjing = demo::build_penjing()?;
    let scratch = process::root().join("target/evidence");
    std::fs::create_dir_all(&scratch)?;
    let small = scratch.join("care.penjing");
    let json_of = |command: &mut Command| -> Result<Value> {
        Ok(serde_json::from_str(&process::output(command.args(["--json", "--quiet"]))?)?)
    };
    let eval = |model: &Path| json_of(Command::new(&penjing).arg("eval").arg(model).arg(test));
    let floats = eval(model)?;
    println!("floats: {}", floats["top1"]);
    let mut ways = Vec::new();
    for (way, flags) in WAYS {
        let mut compress = Command::new(&penjing);
        compress.arg("compress").arg(model).arg(photos).arg("-o").arg(&small);
        // Whatever comes of it is judged here.
        compress.args(["--force", "--max-drop", "100", "--max-latency", "100"]).args(*flags);
        let report = json_of(&mut compress)?;
        let top1 = eval(&small)?["top1"].clone();
        println!("{way}: {top1}");
        let distance = &report["verdict"]["distance"];
        ways.push(json!({"way": way, "flags": flags.join(" "), "top1": top1, "watched": distance}));
    }
    std::fs::remove_file(&small).with_context(|| format!("cannot remove {}", small.display()))?;
    Ok(json!({
        "name": name,
        "n": floats["n"],
        "top1": floats["top1"],
        "ways": ways,
        "machine": super::machine()?,
    }))
}

/// A row a way for each network.
fn table(networks: &[Value]) -> Result<String> {
    let mut text =
        "| network | test photos | 8 bits by | flags | top-1 | divergence |\n|---|---|---|---|---|---|\n"
            .to_string();
    for network in networks {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let number =
            |value: &Value| value.as_f64().with_context(|| format!("a figure is missing: {network}"));
        let top1 = |value: &Value| number(&value["top1"]).map(|share| format!("{:.2} %", 100.0 * share));
        let (name, n) = (word(&network["name"]), number(&network["n"])?);
        text += &format!("| {name} | {n} | floats | | {} | |\n", top1(network)?);
        for way in network["ways"].as_array().into_iter().flatten() {
            let flags = match &*word(&way["flags"]) {
                "" => String::new(),
                flags => format!("`{flags}`"),
            };
            let divergence = number(&way["watched"]["divergence"])?;
            text += &format!("| | | {} | {flags} | {} | {divergence:.4} |\n", word(&way["way"]), top1(way)?);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_is_a_row() {
        let network = json!({
            "name": "set/network", "n": 250, "top1": 0.8,
            "ways": [{"way": "the default", "flags": "", "top1": 0.796, "watched": {"divergence": 0.01234}}],
        });
        let text = table(&[network]).unwrap();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        let floats = "| set/network | 250 | floats | | 80.00 % | |";
        assert_eq!(rows, [floats, "| | | the default |  | 79.60 % | 0.0123 |"]);
        assert!(table(&[json!({"name": "set/network"})]).is_err());
    }
}
