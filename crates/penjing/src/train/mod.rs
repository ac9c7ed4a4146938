//! Training of whole networks: gradients by a tape over the graph, optimizers, schedules, augmentation and state.

pub mod checkpoint;
pub mod ema;
pub mod log;
pub mod loss;
pub mod optimizer;
pub mod parameters;
pub mod schedule;
pub mod tape;
