//! Weights alone in few bits: a smaller file to send, which runs in floats as before.

use penjing_runtime::{
    file::Model,
    graph::Node,
    nibbles::{GROUP, Nibbles},
    tensor::{Data, Tensor},
};

use super::{
    Options, Verdict, Watched,
    fold::{in_groups, layer},
    gate::Judges,
    gptq, unsupported,
};
use crate::{
    Result,
    data::{Dataset, Skipped},
    model,
    progress::Progress,
    threads::Threads,
};

/// Bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// 8, with a scale for each output of a layer.
    Eight,
    /// 4, with a scale for each [32](penjing_runtime::nibbles::GROUP) of an output's weights, rounded with feedback (GPTQ,
    /// arXiv 2210.17323); 8 in layers whose outputs have fewer or that are in groups: such as depthwise ones, which hold
    /// little of the file and are the first to suffer.
    Four,
}

/// Rounds the weights of convolutions and linear layers; all else stays as it is. Of the options count `before`, the gate and, with
/// [`Bits::Four`], how many photos of the training part are watched, and the seed that draws them.
///
/// # Errors
/// [`crate::Error::Unsupported`] for a model that computes in integers; [`crate::Error::Data`] for photos that are too few, of one
/// class, or of classes that the model does not know, or where none can be read; [`crate::Error::Interrupted`].
pub fn weights_only(
    model: &Model,
    data: &Dataset,
    bits: Bits,
    options: &Options,
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<(Model, Verdict, Vec<Skipped>)> {
    let model = &*model::in_floats(model)?;
    let watched = match bits {
        Bits::Eight => Default::default(),
        Bits::Four => super::tensors(model, data, options, threads, progress)?,
    };
    let before = model::in_floats(options.before.as_ref().unwrap_or(model))?;
    let judges = Judges::new(&before, data, threads, progress)?;
    weights_only_before(&judges, model, bits, options, watched)
}

/// As [`weights_only`], of a model in floats, before judges who know the model before.
pub(super) fn weights_only_before(
    judges: &Judges,
    model: &Model,
    bits: Bits,
    options: &Options,
    (watched, mut skipped): (Watched, Vec<Skipped>),
) -> Result<(Model, Verdict, Vec<Skipped>)> {
    let Judges { threads, progress, .. } = *judges;
    super::add_unread(&mut skipped, judges.skipped.iter().cloned());
    let mut small = rounded(model, bits, &watched.inputs, threads, progress)?;
    let verdict = judges.judge(&small, &options.gate)?;
    let width = match bits {
        Bits::Eight => "8 bits".into(),
        Bits::Four => format!("4 bits, {} photos watched", watched.inputs.len()),
    };
    small.provenance.recipe.push(format!("weights in {width}; {}", verdict.in_words()));
    small.provenance.val_top1 = None;
    let bytes = small.to_bytes().map_err(unsupported)?.len();
    Ok((small, verdict.of_size(bytes, &options.gate), skipped))
}

/// The model with weights so rounded that the file is as long as that of [`weights_only`]; nothing is fed back.
pub(super) fn rounded_plainly(model: &Model) -> Model {
    let mut small = model.clone();
    for node in model.graph.nodes().iter().filter(|node| layer(node)) {
        let Some(tensor) = small.weights.get_mut(&format!("{}.weight", node.name)) else { continue };
        *tensor = match takes_four(node, Some(tensor)) {
            true => {
                let nibbles = Nibbles::of(&tensor.to_f32(), tensor.shape[1..].iter().product());
                Tensor { shape: tensor.shape.clone(), data: Data::I4(nibbles) }
            }
            false => tensor.to_i8(),
        };
    }
    small
}

fn rounded(
    model: &Model,
    bits: Bits,
    watched: &[Vec<f32>],
    threads: &Threads,
    progress: &dyn Progress,
) -> Result<Model> {
    let mut small = model.clone();
    let weight = |name: &str| format!("{name}.weight");
    let layers = model.graph.nodes().iter().filter(|node| layer(node)).map(|node| node.name.clone());
    let layers: Vec<String> = layers.filter(|name| model.weights.contains_key(&weight(name))).collect();
    let mut four = match bits {
        Bits::Eight => Default::default(),
        Bits::Four => {
            let fits = |node: &&Node| layer(node) && takes_four(node, model.weights.get(&weight(&node.name)));
            let names: Vec<String> =
                model.graph.nodes().iter().filter(fits).map(|node| node.name.clone()).collect();
            gptq::four_bits(&model.graph, &model.weights, &names, watched, threads, progress)?
        }
    };
    for name in layers {
        let tensor = four.remove(&name).unwrap_or_else(|| model.weights[&weight(&name)].to_i8());
        small.weights.insert(weight(&name), tensor);
    }
    Ok(small)
}

/// Whether each output of a layer that is in one piece fills a group.
fn takes_four(node: &Node, weight: Option<&Tensor>) -> bool {
    let fills = |weight: &Tensor| weight.shape[1..].iter().product::<usize>() >= GROUP;
    !in_groups(node) && weight.is_some_and(|weight| Nibbles::fit(&weight.shape) && fills(weight))
}

#[cfg(test)]
mod tests {
    use penjing_runtime::{
        Isa, PlanBuf, Serial, Session,
        file::{Calibration, Provenance},
        graph::Graph,
        op::{Conv, Op},
    };

    use super::*;
    use crate::{
        progress::Quiet,
        random::SplitMix64,
        zoo::{self, Arch, Config},
    };

    fn model() -> Model {
        let (arch, width) = Arch::named("mobilenet_v2_x0.35").unwrap();
        let config = Config { width, size: 32, ..arch.config(7) };
        let graph = arch.graph(&config).unwrap();
        Model {
            arch: arch.name.into(),
            weights: zoo::random_weights(&graph, 1),
            graph,
            pixels: arch.pixels(&config),
            labels: (0..7).map(|class| class.to_string()).collect(),
            calibration: Calibration { temperature: 1.0 },
            provenance: Provenance::default(),
        }
    }

    fn logits(model: &Model) -> Vec<f32> {
        let plan = PlanBuf::lower(&model.graph, &model.weights, 1).unwrap();
        let mut session = Session::new(plan.into(), Isa::detect());
        let input = session.input();
        (0..input.len()).for_each(|at| input[at] = ((at * 7919 % 257) as f32 - 128.0) / 64.0);
        session.run(&Serial).to_vec()
    }

    fn small(model: &Model, bits: Bits) -> Model {
        let mut random = SplitMix64::new(1);
        let mut photo = || (0..32 * 32 * 3).map(|_| random.uniform() as f32 * 2.0 - 1.0).collect();
        let photos: Vec<Vec<f32>> = (0..8).map(|_| photo()).collect();
        rounded(model, bits, &photos, &Threads::new(Some(2)).unwrap(), &Quiet).unwrap()
    }

    #[test]
    fn weights_take_their_bits_and_the_network_runs_on() {
        let floats = model();
        let exact = logits(&floats);
        let scale = exact.iter().fold(0f32, |peak, logit| peak.max(logit.abs()));
        let off = |small: &Model| {
            let pairs = exact.iter().zip(logits(small));
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale
        };
        let bytes = |model: &Model| model.to_bytes().unwrap().len() as f64;
        let [eight, four] = [Bits::Eight, Bits::Four].map(|bits| small(&floats, bits));
        assert!(off(&eight) > 0.0 && off(&eight) < 0.06, "{}", off(&eight));
        assert!(off(&four) > off(&eight) && off(&four) < 0.3, "{}", off(&four));
        // The graph's own text takes its part of so small a network.
        let [eight_bytes, four_bytes] = [&eight, &four].map(|small| bytes(small) / bytes(&floats));
        assert!(eight_bytes < 0.34 && four_bytes < 0.75 * eight_bytes, "{eight_bytes} {four_bytes}");
        for small in [eight, four] {
            assert!(Model::from_bytes(&small.to_bytes().unwrap()).unwrap() == small);
            assert!(
                model::in_floats(&small).unwrap().weights.values().all(|tensor| !tensor.data.is_integers())
            );
        }
    }

    #[test]
    fn layers_with_short_outputs_keep_8_bits() {
        let four = small(&model(), Bits::Four);
        let is_four =
            |node: &&Node| matches!(four.weights[&format!("{}.weight", node.name)].data, Data::I4(_));
        let layers: Vec<&Node> = four.graph.nodes().iter().filter(|node| layer(node)).collect();
        let depthwise = |node: &&&Node| matches!(&node.op, Op::Conv(conv) if conv.groups > 1);
        assert!(layers.iter().filter(depthwise).count() > 10);
        assert!(!layers.iter().filter(depthwise).any(is_four));
        assert!(layers.iter().filter(|node| is_four(node)).count() > 20);
    }

    #[test]
    fn layers_in_groups_keep_8_bits() {
        let mut graph = Graph::default();
        let x = graph.push("x", Op::Input { shape: [1, 4, 4, 128] }, &[]).unwrap();
        let halves = Op::Conv(Conv { groups: 2, ..Conv::new(8, 1, 1) });
        let halves = graph.push("halves", halves, &[x]).unwrap();
        let pool = graph.push("pool", Op::GlobalAvgPool, &[halves]).unwrap();
        graph.push("head", Op::Linear { out_features: 7, bias: true }, &[pool]).unwrap();
        let weights = zoo::random_weights(&graph, 1);
        let takes = |name: &str| {
            let node = graph.nodes().iter().find(|node| node.name == name).unwrap();
            takes_four(node, weights.get(&format!("{name}.weight")))
        };
        assert!(weights["halves.weight"].shape == [8, 1, 1, 64] && !takes("halves"));
        // And too short, or without a weight.
        assert!(!takes("head") && !takes("pool"));
        let whole = Node { op: Op::Conv(Conv::new(8, 1, 1)), ..graph.nodes()[1].clone() };
        assert!(takes_four(&whole, weights.get("halves.weight")));
    }
}
