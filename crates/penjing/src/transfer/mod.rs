//! What a pretrained backbone already knows, put to use on new classes.

pub mod head;
mod lbfgs;
