//! The threads of one run.

use penjing_kernels::{Serial, Workers};
use rayon::prelude::*;

use crate::{Error, Result};

/// Most threads of one run: what the kernels take.
pub(crate) const MAX_THREADS: usize = 256;

/// A pool of threads: photos are shared out among them, or the pieces of one inference.
#[derive(Debug)]
pub struct Threads {
    pool: rayon::ThreadPool,
}

impl Threads {
    /// So many threads, at most 256; one for each core when `None`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for zero or for more than the system gives.
    pub fn new(count: Option<usize>) -> Result<Self> {
        let count = match count {
            Some(count @ 1..=MAX_THREADS) => count,
            Some(other) => {
                return Err(Error::Unsupported(format!("{other} threads; expected 1 to {MAX_THREADS}")));
            }
            None => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
        let pool =
            pool.map_err(|error| Error::Unsupported(format!("cannot start {count} threads: {error}")))?;
        Ok(Threads { pool })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on the pool: rayon's iterators inside it use these threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// These threads for the pieces of one inference.
    pub fn workers(&self) -> &dyn Workers {
        if self.count() == 1 { &Serial } else { self }
    }
}

impl Workers for Threads {
    fn threads(&self) -> usize {
        self.count()
    }

    fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if pieces == 1 {
            return task(0, 0);
        }
        self.pool.install(|| {
            (0..pieces)
                .into_par_iter()
                .for_each(|piece| task(piece, rayon::current_thread_index().unwrap_or(0)));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_threads_as_the_kernels_take() {
        for count in [0, MAX_THREADS + 1, usize::MAX] {
            assert!(Threads::new(Some(count)).is_err(), "{count}");
        }
        let threads = Threads::new(Some(MAX_THREADS)).unwrap();
        let input = vec![1.0; 64 * 64 * 8];
        let weight = vec![1.0; 8 * 8];
        let mut packed = vec![0.0; penjing_kernels::pointwise::packed_len(8, 8)];
        penjing_kernels::pointwise::pack(8, 8, &weight, None, &mut packed);
        let mut y = vec![0.0; 64 * 64 * 8];
        let (isa, act) = (penjing_kernels::Isa::detect(), penjing_kernels::Act::None);
        penjing_kernels::pointwise::run(
            isa,
            threads.workers(),
            64 * 64,
            8,
            8,
            act,
            &input,
            &packed,
            None,
            &mut y,
        );
        assert!(y.iter().all(|v| *v == 8.0));
    }
}
