//! Threads for tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use penjing_runtime::Workers;

/// Pieces run on so many threads at once.
pub struct Team(pub usize);

impl Workers for Team {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = &|worker| {
            while let piece = next.fetch_add(1, Ordering::Relaxed)
                && piece < pieces
            {
                task(piece, worker);
            }
        };
        std::thread::scope(|scope| {
            for worker in 1..self.0 {
                scope.spawn(move || work(worker));
            }
            work(0);
        });
    }
}
