//! Carrying what a backbone has learnt over to new classes.

pub mod cache;
