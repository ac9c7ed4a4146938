//! `penjing inspect`.

use std::{fmt::Write as _, path::PathBuf};

use penjing::model;
use penjing_runtime::{PlanBuf, cost, cost::LayerCost, file::Provenance, pixels::Pixels};

use super::Outcome;
use crate::console::{Console, bytes};

/// Say what a model is: layers, cost, memory, pixels, origin
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
}

#[derive(serde::Serialize)]
struct Inspection<'a> {
    arch: &'a str,
    params: u64,
    macs: u64,
    /// Activations and scratch of one run by one thread, as planned; weights come on top.
    peak_ram_bytes: usize,
    /// Weights as they lie in memory, packed.
    weights_bytes: usize,
    /// First layers of blocks that are computed a few rows at a time, their maps never whole in memory.
    by_rows: Vec<&'a str>,
    file_bytes: u64,
    input: &'a Pixels,
    labels: &'a [String],
    temperature: f32,
    layers: &'a [LayerCost],
    provenance: &'a Provenance,
}

pub fn run(args: Args, console: &Console) -> anyhow::Result<Outcome> {
    let model = model::load(&args.model)?;
    let layers = cost::layers(&model.graph);
    let plan = PlanBuf::lower(&model.graph, &model.weights, 1)?;
    let inspection = Inspection {
        arch: &model.arch,
        params: layers.iter().map(|layer| layer.params).sum(),
        macs: layers.iter().map(|layer| layer.macs).sum(),
        peak_ram_bytes: plan.plan().peak_ram_bytes(),
        weights_bytes: size_of_val(plan.plan().weights),
        by_rows: plan.by_rows().collect(),
        file_bytes: std::fs::metadata(&args.model)?.len(),
        input: &model.pixels,
        labels: &model.labels,
        temperature: model.calibration.temperature,
        layers: &layers,
        provenance: &model.provenance,
    };
    console.result(&inspection, || describe(&inspection))?;
    Ok(Outcome::Done)
}

fn describe(inspection: &Inspection) -> String {
    let mut text = String::new();
    let Pixels { height, width, color, fit, filter, mean, std, decode } = inspection.input;
    let labels: Vec<&str> = inspection.labels.iter().take(12).map(String::as_str).collect();
    let more = inspection.labels.len().saturating_sub(labels.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let provenance = inspection.provenance;
    let _ = write!(
        text,
        "network     {}\nparameters  {:.2} M\nmultiply-adds {:.1} M\nmemory      {} working, {} weights\nfile        {}\n\
         input       {height}×{width} {color:?}, {fit:?}, {filter:?}, decoded {decode:?}, mean {mean:?}, deviation {std:?}\n\
         labels      {}: {}{more}\n",
        inspection.arch,
        inspection.params as f64 / 1e6,
        inspection.macs as f64 / 1e6,
        bytes(inspection.peak_ram_bytes as u64),
        bytes(inspection.weights_bytes as u64),
        bytes(inspection.file_bytes),
        inspection.labels.len(),
        labels.join(", "),
    );
    if !inspection.by_rows.is_empty() {
        let _ = writeln!(text, "by rows     blocks that begin with {}", inspection.by_rows.join(", "));
    }
    let _ = match provenance.backbone.as_str() {
        "none" => writeln!(text, "backbone    none: it began with random weights"),
        backbone => writeln!(text, "backbone    {backbone} ({})", provenance.license),
    };
    for (number, step) in provenance.recipe.iter().enumerate() {
        let _ = writeln!(text, "{:12}{}. {step}", if number == 0 { "recipe" } else { "" }, number + 1);
    }
    if let Some(val_top1) = provenance.val_top1 {
        let _ = writeln!(text, "validation  {:.2} %", 100.0 * val_top1);
    }
    let _ = writeln!(
        text,
        "\n{:28} {:16} {:>18} {:>10} {:>12}",
        "layer", "operation", "result", "params", "macs"
    );
    for layer in inspection.layers {
        let [_, h, w, c] = layer.shape;
        let _ = writeln!(
            text,
            "{:28} {:16} {:>18} {:>10} {:>12}",
            layer.name,
            layer.op,
            format!("{h}×{w}×{c}"),
            layer.params,
            layer.macs
        );
    }
    text
}
