//! Model files: from raw bytes; with the hash put right, which no mutation would find; and from the document alone, with
//! weights made to fit. What is read is written, lowered and run.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use penjing_runtime::{
    Isa, PlanBuf, Serial, Session, cost,
    file::Model,
    graph::{Graph, Node},
    op::{AvgPool, Op},
};
use safetensors::{Dtype, tensor::TensorView};

/// Larger networks are read, but not run.
const MOST_VALUES: u64 = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    match std::str::from_utf8(bytes) {
        Ok(document) if document.starts_with('{') => {
            if let Some(file) = around(document) {
                check(&hashed(file));
            }
        }
        _ => {
            check(bytes);
            check(&hashed(bytes.to_vec()));
        }
    }
});

fn check(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes) else { return };
    let written = model.to_bytes().expect("what was read can be written");
    let again = Model::from_bytes(&written).expect("what was written can be read");
    assert!(again.to_bytes().expect("twice") == written, "the same model gives the same bytes");
    let work = cost::layers(&model.graph).iter().zip(model.graph.nodes()).fold(0u64, |sum, (layer, node)| {
        let values = layer.shape.iter().product::<usize>() as u64;
        // Pooling has no multiplications, but its windows take as long.
        let taps = match &node.op {
            Op::MaxPool(pool) | Op::AvgPool(AvgPool { window: pool, .. }) => pool.kernel[0] * pool.kernel[1],
            _ => 1,
        };
        sum.saturating_add(layer.macs).saturating_add(layer.params).saturating_add(values * taps as u64)
    });
    if work > 16 * MOST_VALUES {
        return;
    }
    let Ok(plan) = PlanBuf::lower(&model.graph, &model.weights, 1) else { return };
    if plan.plan().arena_len as u64 > 4 * MOST_VALUES {
        return;
    }
    let plan = std::sync::Arc::new(plan);
    let mut bits = Vec::new();
    for isa in [Isa::scalar(), Isa::detect()] {
        let mut session = Session::new(plan.clone(), isa);
        session.input().fill(0.5);
        bits.push(session.run(&Serial).iter().map(|v| if v.is_nan() { 0 } else { v.to_bits() }).collect::<Vec<_>>());
    }
    assert!(bits[0] == bits[1], "every instruction set gives the same bits");
}

/// A file with this document and small weights that fit its graph. `None` when the graph is none, or a large one.
fn around(document: &str) -> Option<Vec<u8>> {
    let parsed: serde_json::Value = serde_json::from_str(document).ok()?;
    let nodes: Vec<Node> = serde_json::from_value(parsed.get("graph")?.clone()).ok()?;
    let mut graph = Graph::default();
    for node in nodes {
        graph.push(&node.name, node.op, &node.inputs).ok()?;
    }
    let params = cost::layers(&graph).iter().fold(0u64, |sum, layer| sum.saturating_add(layer.params));
    if params > MOST_VALUES {
        return None;
    }
    let values: Vec<u8> = (0..4 * MOST_VALUES as u32).flat_map(|i| ((i % 7) as f32 / 8.0).to_le_bytes()).collect();
    let parameters = graph.parameters();
    let views = parameters.iter().map(|(name, shape)| {
        let len = shape.iter().product::<usize>() * 4;
        (name, TensorView::new(Dtype::F32, shape.clone(), &values[..len]).expect("as many values as the shape says"))
    });
    let metadata = [("penjing".to_owned(), document.to_owned())].into_iter().collect();
    safetensors::serialize(views, Some(metadata)).ok()
}

/// The file with the hash that its format asks for, if there is a place for one.
fn hashed(mut bytes: Vec<u8>) -> Vec<u8> {
    const MARK: &[u8] = br#""penjing":"{\"hash\":\""#;
    if let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK)
        && let Some(place) = bytes.get_mut(at + MARK.len()..).and_then(|rest| rest.get_mut(..64))
    {
        place.fill(b'0');
        let hash = blake3::hash(&bytes).to_hex();
        bytes[at + MARK.len()..][..64].copy_from_slice(hash.as_bytes());
    }
    bytes
}
