//! Weights from elsewhere.
