//! Blocks that are computed a few rows at a time: a depthwise convolution with the pointwise ones around it.

use alloc::string::String;

use penjing_kernels::{Act, Window, separable};

use super::Lowering;
use crate::{
    graph::NodeId,
    op::Op,
    plan::{Buffer, Partner, Span, Step},
};

/// A depthwise convolution and the pointwise ones around it, with the channels of their other side.
pub(super) struct Filter {
    pub window: Window,
    pub channels: usize,
    pub before: Option<(usize, Partner)>,
    pub act: Act,
    pub weights: Span,
    pub after: Option<(usize, Partner)>,
    pub x: Buffer,
}

impl Filter {
    /// Of a step that has nothing behind it yet.
    pub fn of(step: &Step) -> Option<Filter> {
        match *step {
            Step::Depthwise { window, channels, act, x, weights, .. } => {
                Some(Filter { window, channels, before: None, act, weights, after: None, x })
            }
            Step::Separable { window, channels, before, act, weights, after: None, x, .. } => {
                let before = before.map(|before| (channels[0], before));
                Some(Filter { window, channels: channels[1], before, act, weights, after: None, x })
            }
            _ => None,
        }
    }
}

impl Lowering<'_> {
    /// Takes the last step back if it makes the map that `id` reads, nobody else does, the map is large enough to be computed
    /// by rows, and `part` finds in it what it looks for.
    pub(super) fn take_by_rows<T>(
        &mut self,
        id: NodeId,
        part: impl Fn(&Step) -> Option<T>,
    ) -> Option<(String, T)> {
        let input = self.graph.node(id).inputs[0];
        // What passes another node's values on says nothing of who else reads them.
        let passes_on = matches!(self.graph.node(input).op, Op::Flatten | Op::Dropout { .. });
        let map = self.value[input.index()]?;
        if passes_on || self.only_user(input) != Some(id) || self.lengths[map] < self.how.by_rows {
            return None;
        }
        let last = self.steps.last_mut()?;
        let part = if last.result() == map { part(last) } else { None }?;
        // Neither the map nor what its step worked in needs a place.
        self.lengths[map] = 0;
        if let Step::Separable { scratch, .. } = last {
            self.lengths[scratch.start] = 0;
        }
        self.steps.pop();
        self.results.pop();
        Some((self.names.pop()?, part))
    }

    pub(super) fn emit_by_rows(&mut self, name: String, filter: Filter, [id, last]: [NodeId; 2]) {
        let Filter { window, channels, before, act, weights, after, x } = filter;
        let len =
            separable::scratch_len(&window, channels, before.is_some(), after.is_some(), self.how.threads);
        let scratch = self.fresh(len);
        let scratch = self.touch(scratch);
        let y = self.write_chain(id, last);
        let channels = [before.map_or(channels, |(k, _)| k), channels, after.map_or(channels, |(n, _)| n)];
        let [before, after] = [before, after].map(|partner| partner.map(|(_, partner)| partner));
        self.names.push(name);
        self.push_named(
            last,
            Step::Separable { window, channels, before, act, weights, after, x, scratch, y },
        );
    }
}
