//! Who runs the pieces of a large output, and how an output is split.

use core::{marker::PhantomData, ops::Range};

/// A team of threads. Implementations may spread pieces over threads as they like; results never depend on it.
pub trait Workers: Sync {
    /// Upper bound of worker ids, from 1 to 256.
    fn threads(&self) -> usize;

    /// Runs `task(piece, worker)` once for every piece in `0..pieces`, with `worker < threads()` and each worker id used by
    /// one thread at a time; returns when all are done.
    fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Serial;

impl Workers for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        (0..pieces).for_each(|piece| task(piece, 0));
    }
}

/// No output is split into more pieces than this.
pub(crate) const MAX_PIECES: usize = 64;

/// Into how many pieces work on `grains` indivisible parts is split: a matter of shapes only.
pub(crate) fn pieces(grains: usize, macs: usize) -> usize {
    // Below this a second thread costs more than it brings.
    if macs < 50_000 { 1 } else { grains.min(macs / 25_000).clamp(1, MAX_PIECES / 2) }
}

/// The part of `0..total` that belongs to `piece`, in whole grains.
pub(crate) fn part(piece: usize, pieces: usize, total: usize, grain: usize) -> Range<usize> {
    let grains = total.div_ceil(grain);
    let edge = |p: usize| (grains * p / pieces * grain).min(total);
    edge(piece)..edge(piece + 1)
}

/// Runs `task(piece, worker)` for every piece. No piece runs twice and no worker id is used by two threads at once: a
/// team that breaks this contract is caught by a panic, so `unsafe` code may rely on it.
pub(crate) fn dispatch(workers: &dyn Workers, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
    assert!(pieces <= MAX_PIECES);
    if pieces <= 1 {
        (0..pieces).for_each(|piece| task(piece, 0));
        return;
    }
    // Without compare-and-swap there is one core, and nobody to share with.
    #[cfg(not(target_has_atomic = "32"))]
    {
        let _ = workers;
        (0..pieces).for_each(|piece| task(piece, 0));
    }
    #[cfg(target_has_atomic = "32")]
    {
        use core::sync::atomic::{AtomicU32, Ordering};
        let started = [const { AtomicU32::new(0) }; MAX_PIECES / 32];
        let busy = [const { AtomicU32::new(0) }; 256 / 32];
        let threads = workers.threads();
        assert!((1..=256).contains(&threads), "Workers::threads() must be 1..=256, not {threads}");
        workers.run(pieces, &|piece, worker| {
            assert!(
                piece < pieces && worker < threads,
                "Workers::run: no piece {piece} or no worker {worker}"
            );
            let (first, free) = (1 << (piece % 32), 1 << (worker % 32));
            let before = started[piece / 32].fetch_or(first, Ordering::Relaxed);
            assert!(before & first == 0, "Workers::run: piece {piece} ran twice");
            let before = busy[worker / 32].fetch_or(free, Ordering::Acquire);
            assert!(before & free == 0, "Workers::run: worker {worker} runs on two threads");
            task(piece, worker);
            busy[worker / 32].fetch_and(!free, Ordering::Release);
        });
        let done: u32 = started.iter().map(|bits| bits.load(Ordering::Relaxed).count_ones()).sum();
        assert!(done as usize == pieces, "Workers::run: only {done} of {pieces} pieces ran");
    }
}

/// Gets a range of rows, their values, and the worker's id.
type RowTask<'a, T> = dyn Fn(Range<usize>, &mut [T], usize) + Sync + 'a;

/// Splits `y`, rows of `row_len` values, between workers: `task(rows, their values, worker)`. Pieces begin at multiples of
/// `grain` rows; `macs` is the work of the whole.
pub(crate) fn split_rows<T: Send>(
    workers: &dyn Workers,
    y: &mut [T],
    row_len: usize,
    grain: usize,
    macs: usize,
    task: &RowTask<T>,
) {
    let rows = y.len().checked_div(row_len).unwrap_or(0);
    let pieces = pieces(rows.div_ceil(grain), macs);
    let y = Shared::new(y);
    dispatch(workers, pieces, &|piece, worker| {
        let rows = part(piece, pieces, rows, grain);
        // SAFETY: `part` gives disjoint rows to different pieces, and `dispatch` runs a piece once.
        let y = unsafe { y.slice(rows.start * row_len, rows.len() * row_len) };
        task(rows, y, worker);
    });
}

/// A slice whose parts are written by several workers.
pub(crate) struct Shared<'a, T = f32> {
    ptr: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice` and `view`, whose callers promise that parts in use are disjoint.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Shared { ptr: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// # Safety
    /// No other part in use at the same time overlaps this one.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: inside the slice by the assertion, exclusive by the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }

    /// `rows` x `columns` values, the first at `start`, rows `stride` apart.
    ///
    /// # Safety
    /// No other part in use at the same time overlaps this one.
    pub(crate) unsafe fn view(
        &self,
        start: usize,
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> View<'a, T> {
        assert!(columns <= stride);
        if rows > 0 {
            assert!(start + (rows - 1) * stride + columns <= self.len);
        }
        // SAFETY: the pointer stays inside the slice, or at its end if there are no rows.
        let ptr = unsafe { self.ptr.add(start.min(self.len)) };
        View { ptr, rows, columns, stride, life: PhantomData }
    }
}

/// A rectangle of a row-major matrix, to be written by one worker.
pub(crate) struct View<'a, T = f32> {
    ptr: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    life: PhantomData<&'a mut [T]>,
}

impl<T> View<'_, T> {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.ptr
    }

    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: the rectangle lies inside the matrix and is this view's alone.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(row * self.stride), self.columns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Team;
    use std::vec;

    #[test]
    fn parts_cover_everything_once() {
        for (total, grain, pieces) in [(10, 3, 3), (0, 4, 1), (7, 1, 7), (100, 14, 5)] {
            let mut next = 0;
            for piece in 0..pieces {
                let range = part(piece, pieces, total, grain);
                assert_eq!(range.start, next);
                next = range.end;
            }
            assert_eq!(next, total);
        }
    }

    #[test]
    fn rows_are_written_by_their_piece() {
        let mut y = vec![0.0; 300];
        split_rows(&Team(3), &mut y, 3, 7, 1 << 20, &|rows, y, _| {
            for (row, y) in rows.zip(y.chunks_mut(3)) {
                y.fill(row as f32);
            }
        });
        assert!(y.iter().enumerate().all(|(i, &v)| v == (i / 3) as f32));
    }

    struct Twice;
    impl Workers for Twice {
        fn threads(&self) -> usize {
            1
        }
        fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
            (0..pieces).for_each(|piece| task(piece / 2, 0));
        }
    }

    #[test]
    #[should_panic(expected = "ran twice")]
    fn a_team_that_repeats_a_piece_is_caught() {
        dispatch(&Twice, 4, &|_, _| {});
    }
}
