//! A network applied to photos, from many threads at once.

use std::sync::{Arc, Mutex, PoisonError};

use penjing_runtime::{
    Isa, PlanBuf, Serial, Session, Workers,
    graph::Graph,
    pixels::{Pixels, Rgb, View},
    tensor::Weights,
};

use crate::Result;

/// Applies a graph to photos under a pixels contract. Shared by threads; each run borrows an arena of its own.
#[derive(Debug)]
pub struct Runner {
    plan: Arc<PlanBuf>,
    isa: Isa,
    pixels: Pixels,
    idle: Mutex<Vec<Session>>,
}

impl Runner {
    /// Lowers the graph for this machine. `threads` is how many may share one run.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) when graph and weights do not fit.
    pub fn new(graph: &Graph, weights: &Weights, pixels: &Pixels, threads: usize) -> Result<Self> {
        let plan = PlanBuf::lower(graph, weights, threads)
            .map_err(|error| crate::Error::Unsupported(format!("the network cannot be run: {error}")))?;
        let idle = Mutex::new(Vec::new());
        Ok(Runner { plan: Arc::new(plan), isa: Isa::detect(), pixels: pixels.clone(), idle })
    }

    /// The same on another instruction set.
    pub fn on(self, isa: Isa) -> Self {
        Runner { isa, idle: Mutex::default(), ..self }
    }

    /// The plan that is run.
    pub fn plan(&self) -> &PlanBuf {
        &self.plan
    }

    /// The contract that photos are seen under.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The instruction set that is used.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The network's result for one view of a photo.
    pub fn run(&self, photo: Rgb<'_>, view: View) -> Vec<f32> {
        self.with_session(|session| {
            self.pixels.tensor(photo, view, session.input());
            session.run(&Serial).to_vec()
        })
    }

    /// The network's result for an input tensor `[H,W,C]`, the work shared by `workers`.
    ///
    /// # Panics
    /// If the tensor has another length than the network's input.
    pub fn run_tensor(&self, input: &[f32], workers: &dyn Workers) -> Vec<f32> {
        self.with_session(|session| {
            session.input().copy_from_slice(input);
            session.run(workers).to_vec()
        })
    }

    fn with_session<R>(&self, work: impl FnOnce(&mut Session) -> R) -> R {
        // A session holds no state between runs, so one left by a thread that panicked is as good as any.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = idle.unwrap_or_else(|| Session::new(Arc::clone(&self.plan), self.isa));
        let result = work(&mut session);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        result
    }
}
