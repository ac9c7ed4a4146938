//! Training of whole networks: gradients by a tape over the graph, optimizers, schedules, augmentation and state.

pub mod loss;
pub mod parameters;
pub mod tape;
