//! How long work tells what it does, and is told to stop.

/// Watches work that takes a while. Every method may be called from any thread.
pub trait Progress: Sync {
    /// A phase begins: what it does, and how many items it has.
    fn begin(&self, _phase: &str, _items: usize) {}
    /// So many items of the phase are done.
    fn advance(&self, _items: usize) {}
    /// The phase is over.
    fn end(&self) {}
    /// Something the user should know: one line.
    fn notice(&self, _line: &str) {}
    /// Whether the user wants the work to stop; asked between items.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Progress for Quiet {}

/// Work inside other work: nothing is shown, but the user can stop it.
pub struct Hushed<'a>(pub &'a dyn Progress);

impl std::fmt::Debug for Hushed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hushed")
    }
}

impl Progress for Hushed<'_> {
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
