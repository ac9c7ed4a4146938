//! Training of whole networks: gradients by a tape over the graph, optimizers, schedules, augmentation and state.

pub mod augment;
pub mod checkpoint;
pub mod color;
pub mod distill;
pub mod ema;
pub mod feed;
pub mod learner;
pub mod log;
pub mod loss;
pub mod memory;
pub mod mix;
pub mod optimizer;
pub mod parameters;
pub mod randaugment;
pub mod schedule;
pub mod speed;
pub mod tape;
pub mod teacher;
pub mod trainer;
