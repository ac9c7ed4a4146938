//! A plan with memory of its own: what a workstation runs.

use alloc::sync::Arc;

use penjing_kernels::{Isa, Workers};

use crate::{aligned::Aligned, graph::NodeId, lower::PlanBuf, plan::Made};

/// Runs one plan again and again in one arena. Sessions over the same plan share its weights.
#[derive(Clone, Debug)]
pub struct Session {
    plan: Arc<PlanBuf>,
    isa: Isa,
    arena: Aligned,
}

impl Session {
    /// A session with an arena of its own.
    pub fn new(plan: Arc<PlanBuf>, isa: Isa) -> Self {
        let arena = Aligned::zeros(plan.plan().arena_len);
        Session { plan, isa, arena }
    }

    /// Where the input tensor `[N,H,W,C]` goes.
    pub fn input(&mut self) -> &mut [f32] {
        let input = self.plan.plan().input;
        &mut self.arena.get_mut()[input.start..input.start + input.len]
    }

    /// Runs the network on what [`input`](Self::input) holds and gives its result. The input is overwritten.
    pub fn run(&mut self, workers: &dyn Workers) -> &[f32] {
        let plan = self.plan.plan();
        plan.run(self.isa, workers, self.arena.get_mut());
        &self.arena.get()[plan.output.start..plan.output.start + plan.output.len]
    }

    /// As [`run`](Self::run); `watch` sees the input and each result that stands whole, as it is kept: see
    /// [`Lower::plain`](crate::Lower::plain).
    pub fn run_watched(&mut self, workers: &dyn Workers, watch: &mut dyn FnMut(NodeId, Made)) -> &[f32] {
        let plan = self.plan.plan();
        let arena = self.arena.get_mut();
        watch(NodeId::FIRST, Made::Floats(&arena[plan.input.start..][..plan.input.len]));
        for (step, result) in plan.steps.iter().zip(self.plan.results()) {
            plan.step(step, self.isa, workers, arena);
            if let &Some(node) = result {
                watch(node, step.made(arena));
            }
        }
        &self.arena.get()[plan.output.start..plan.output.start + plan.output.len]
    }

    /// The plan.
    pub fn plan(&self) -> &PlanBuf {
        &self.plan
    }
}
