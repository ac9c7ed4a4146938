//! A network without weights that was asked for: one of the zoo by its name, or one that a file declares.

use std::path::Path;

use penjing_runtime::{graph::Graph, pixels::Pixels};

use super::{Arch, Config, Declared, name_at, with_width};
use crate::Result;

/// A network and its width.
#[derive(Clone, Debug)]
pub enum Network {
    /// One of [`ARCHS`](super::ARCHS).
    Zoo(&'static Arch, f64),
    /// One of the user's own.
    Declared(Box<Declared>, f64),
}

impl Network {
    /// The network of this name, such as `mobilenet_v2_x0.5`, or the one in this file, such as `my_net.toml` or, for another
    /// width, `my_net.toml_x0.5`.
    ///
    /// # Errors
    /// As [`Arch::named`] and [`Declared::read`].
    pub fn named(name: &str) -> Result<Network> {
        match Self::file(name) {
            Some((path, width)) => Ok(Network::Declared(Box::new(Declared::read(path)?), width)),
            None => Arch::named(name).map(|(arch, width)| Network::Zoo(arch, width)),
        }
    }

    /// The file that this name is, judged by its ending, and the width that is asked for. `None` for a name of the zoo.
    pub fn file(name: &str) -> Option<(&Path, f64)> {
        let (base, width) = with_width(name);
        let path = Path::new(base);
        path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml")).then_some((path, width))
    }

    /// What its models call it.
    pub fn name(&self) -> String {
        match self {
            Network::Zoo(arch, width) => name_at(arch.name, *width),
            Network::Declared(declared, width) => name_at(declared.name(), *width),
        }
    }

    /// Input size in pixels where nothing else is asked for.
    pub fn size(&self) -> usize {
        match self {
            Network::Zoo(arch, _) => arch.size,
            Network::Declared(declared, _) => declared.size(),
        }
    }

    /// The graph for an input of this size.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a width, size or number of classes that it cannot have;
    /// [`Error::Model`](crate::Error::Model) naming the row of a file that does not fit.
    pub fn graph(&self, size: usize, classes: usize) -> Result<Graph> {
        match self {
            Network::Zoo(arch, width) => arch.graph(&Config { width: *width, size, ..arch.config(classes) }),
            Network::Declared(declared, width) => declared.graph(*width, size, classes),
        }
    }

    /// How photos become an input of this size.
    pub fn pixels(&self, size: usize) -> Pixels {
        match self {
            Network::Zoo(arch, width) => arch.pixels(&Config { width: *width, size, ..arch.config(2) }),
            Network::Declared(declared, _) => declared.pixels(size),
        }
    }
}
