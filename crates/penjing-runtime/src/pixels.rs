//! The pixels contract: how a decoded photo becomes the network's input tensor.
