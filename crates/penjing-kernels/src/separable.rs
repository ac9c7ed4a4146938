//! A depthwise convolution and the pointwise ones around it, a few rows at a time: what stands between them never leaves
//! the cache, nor needs memory for a whole map.

use crate::{
    Act, Isa, Window, Workers, arch,
    depthwise::{self, Job, convolve},
    pointwise::{self, Block},
    volume,
    workers::{MAX_PIECES, Shared, dispatch, part},
};

/// A pointwise convolution before or after.
#[derive(Clone, Copy, Debug)]
pub struct Pointwise<'a> {
    /// Applied last.
    pub act: Act,
    /// From [`pointwise::pack`].
    pub packed: &'a [f32],
    /// `[n,out_h,out_w,out_c]`, added before the activation; only after.
    pub residual: Option<&'a [f32]>,
}

/// Length of the scratch [`run`] needs with a team of `threads`, for a depthwise convolution of `c` channels that has
/// pointwise ones before and after it or not.
pub fn scratch_len(window: &Window, c: usize, before: bool, after: bool, threads: usize) -> usize {
    let [above, below] = bands(window, c, before, after);
    let both = above.checked_add(below).expect("tensor size overflows usize");
    volume(&[threads, both])
}

/// Values of the rows before and after the depthwise convolution that one worker keeps.
fn bands(window: &Window, c: usize, before: bool, after: bool) -> [usize; 2] {
    let rows = rows_at_once(window, c);
    // Neither more rows than there are.
    let above = if before { seen(window, rows).min(window.in_h) } else { 0 };
    let below = if after { rows.min(window.out_h) } else { 0 };
    [volume(&[above, window.in_w, c]), volume(&[below, window.out_w, c])]
}

/// Input rows that so many neighbouring output rows see.
fn seen(window: &Window, rows: usize) -> usize {
    (rows - 1) * window.stride_h + (window.kernel_h - 1) * window.dilation_h + 1
}

/// Output rows computed at once: pairs, as many as keep what they see in 128 KiB.
fn rows_at_once(window: &Window, c: usize) -> usize {
    const VALUES: usize = 32 * 1024;
    let fit = VALUES / (window.in_w * c).max(1);
    let more = fit.saturating_sub(seen(window, 2)) / window.stride_h;
    2 + more / 2 * 2
}

/// y = after(depthwise(before(x))), each where it is given, with the results of [`pointwise::run`] and [`depthwise::run`]
/// bit for bit: x `[n,in_h,in_w,in_c]`, between them c channels, y `[n,out_h,out_w,out_c]`; without `before` in_c is c,
/// without `after` out_c is. `packed` is from [`depthwise::pack`], `act` its activation; `scratch` has at least
/// [`scratch_len`], its content without meaning.
///
/// # Panics
/// Besides, if `before` has a residual.
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    window: &Window,
    [in_c, c, out_c]: [usize; 3],
    before: Option<Pointwise>,
    act: Act,
    packed: &[f32],
    after: Option<Pointwise>,
    x: &[f32],
    scratch: &mut [f32],
    y: &mut [f32],
) {
    window.check(in_c, x, out_c, y);
    assert_eq!(packed.len(), depthwise::packed_len(c, window.taps()), "packed_len(c, taps)");
    match before {
        Some(before) => {
            assert_eq!(before.packed.len(), pointwise::packed_len(c, in_c), "packed_len(c, in_c)");
            assert!(before.residual.is_none(), "a residual before the depthwise convolution");
        }
        None => assert_eq!(in_c, c, "x has the depthwise convolution's channels"),
    }
    match after {
        Some(after) => {
            assert_eq!(after.packed.len(), pointwise::packed_len(out_c, c), "packed_len(out_c, c)");
            assert!(after.residual.is_none_or(|r| r.len() == y.len()), "residual is as long as y");
        }
        None => assert_eq!(out_c, c, "y has the depthwise convolution's channels"),
    }
    let threads = workers.threads();
    let [above, below] = bands(window, c, before.is_some(), after.is_some());
    assert!(
        scratch.len() >= scratch_len(window, c, before.is_some(), after.is_some(), threads),
        "scratch_len(window, c, before, after, threads)"
    );
    if y.is_empty() {
        return;
    }
    let rows = window.n * window.out_h;
    // Neighbouring pieces both compute the rows that both see, so there are only two for each thread.
    let pieces = if threads == 1 { 1 } else { (2 * threads).min(rows.div_ceil(2)).min(MAX_PIECES) };
    let (at_once, width) = (rows_at_once(window, c), window.out_w * out_c);
    let (scratch, y) = (Shared::new(scratch), Shared::new(y));
    dispatch(workers, pieces, &|piece, worker| {
        let rows = part(piece, pieces, rows, 2);
        // SAFETY: each worker id has its own part, and `dispatch` lets one thread at a time use an id.
        let scratch = unsafe { scratch.slice(worker * (above + below), above + below) };
        let (above, below) = scratch.split_at_mut(above);
        let mut band = Band { image: 0, rows: 0..0, values: above };
        let mut first = rows.start;
        while first < rows.end {
            let (image, oy) = (first / window.out_h, first % window.out_h);
            let count = at_once.min(rows.end - first).min(window.out_h - oy);
            let top = oy * window.stride_h;
            let seen = [top, top + seen(window, count)]
                .map(|row| row.saturating_sub(window.pad_top).min(window.in_h));
            let part = Window {
                n: 1,
                in_h: seen[1] - seen[0],
                out_h: count,
                // Less than nothing only where no row is seen.
                pad_top: (window.pad_top + seen[0]).saturating_sub(top),
                ..*window
            };
            let x = match before {
                Some(before) => band.fill(isa, window, [in_c, c], image, seen, &before, x),
                None => {
                    &x[(image * window.in_h + seen[0]) * window.in_w * c..][..part.in_h * window.in_w * c]
                }
            };
            // SAFETY: pieces have different rows, `dispatch` runs a piece once, and one part is in use at a time.
            let y = unsafe { y.slice(first * width, count * width) };
            let job = Job { window: &part, c, act, x, packed };
            match after {
                None => arch::select!(isa, convolve(&job, 0..count, y)),
                Some(after) => {
                    let pixels = count * window.out_w;
                    let between = &mut below[..pixels * c];
                    arch::select!(isa, convolve(&job, 0..count, between));
                    let residual = after.residual.map(|r| &r[first * width..]);
                    let Pointwise { act, packed, .. } = after;
                    let x = &*between;
                    // SAFETY: the part belongs to this piece alone, and the view is all of it.
                    let y = unsafe { Shared::new(y).view(0, pixels, out_c, out_c) };
                    let block = Block { k: c, x, x_stride: c, runs: 1, run_stride: 0, packed, act, residual };
                    pointwise::block(isa, &block, y);
                }
            }
            first += count;
        }
    });
}

/// Rows of an image after the first pointwise convolution.
struct Band<'a> {
    image: usize,
    rows: core::ops::Range<usize>,
    values: &'a mut [f32],
}

impl Band<'_> {
    /// The rows `[from, to]` of an image; those that it holds already are not computed again.
    fn fill(
        &mut self,
        isa: Isa,
        window: &Window,
        [in_c, c]: [usize; 2],
        image: usize,
        [from, to]: [usize; 2],
        before: &Pointwise,
        x: &[f32],
    ) -> &[f32] {
        let (pixels, len) = (window.in_w, window.in_w * c);
        let kept = if image == self.image && self.rows.contains(&from) {
            let kept = (self.rows.end.min(to) - from) * len;
            let start = (from - self.rows.start) * len;
            self.values.copy_within(start..start + kept, 0);
            kept / len
        } else {
            0
        };
        (self.image, self.rows) = (image, from..to);
        let (fresh, count) = (from + kept, (to - from - kept) * pixels);
        let x = &x[(image * window.in_h + fresh) * pixels * in_c..];
        let Pointwise { act, packed, .. } = *before;
        // SAFETY: the band is borrowed for writing, and the view is its only use.
        let y = unsafe { Shared::new(&mut *self.values).view(kept * len, count, c, c) };
        let block = Block { k: in_c, x, x_stride: in_c, runs: 1, run_stride: 0, packed, act, residual: None };
        pointwise::block(isa, &block, y);
        &self.values[..(to - from) * len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial,
        testing::{Team, noise, window},
    };
    use std::{vec, vec::Vec};

    /// One after the other, whole maps at a time.
    fn apart(
        window: &Window,
        [in_c, c, out_c]: [usize; 3],
        before: Option<Pointwise>,
        act: Act,
        packed: &[f32],
        after: Option<Pointwise>,
        x: &[f32],
    ) -> Vec<f32> {
        let (isa, pixels) = (Isa::scalar(), window.n * window.in_h * window.in_w);
        let mut wide = vec![0.0; pixels * c];
        match before {
            Some(b) => pointwise::run(isa, &Serial, pixels, in_c, c, b.act, x, b.packed, None, &mut wide),
            None => wide.copy_from_slice(x),
        }
        let mut filtered = vec![0.0; window.out_pixels() * c];
        depthwise::run(isa, &Serial, window, c, act, &wide, packed, &mut filtered);
        let Some(a) = after else { return filtered };
        let mut y = vec![0.0; window.out_pixels() * out_c];
        let m = window.out_pixels();
        pointwise::run(isa, &Serial, m, c, out_c, a.act, &filtered, a.packed, a.residual, &mut y);
        y
    }

    #[test]
    fn rows_at_a_time_equal_whole_maps() {
        let (mut cases, mut several) = (0, 0);
        // The last ones are too large for one band.
        let maps = [(2, 1, 1, 5), (2, 7, 9, 24), (3, 12, 5, 17), (1, 40, 60, 96), (2, 33, 112, 40)];
        for (n, h, w, c) in maps {
            for (kernel, stride, dilation, pad) in
                [(3, 1, 1, 1), (3, 2, 1, 1), (5, 2, 1, 2), (3, 1, 2, 2), (3, 2, 1, 0)]
            {
                if h + 2 * pad < (kernel - 1) * dilation + 1 || w + 2 * pad < (kernel - 1) * dilation + 1 {
                    continue;
                }
                let window = window(n, h, w, kernel, stride, dilation, pad);
                several += usize::from(rows_at_once(&window, c) < window.out_h);
                let mut packed = vec![0.0; depthwise::packed_len(c, window.taps())];
                let (weights, bias) = (noise(c * window.taps(), 1), noise(c, 2));
                depthwise::pack(c, window.taps(), &weights, Some(&bias), &mut packed);
                for (before, after) in [(true, true), (true, false), (false, true), (false, false)] {
                    let [in_c, out_c] = [if before { 7 } else { c }, if after { 11 } else { c }];
                    let pack = |n: usize, k: usize| {
                        let mut packed = vec![0.0; pointwise::packed_len(n, k)];
                        pointwise::pack(n, k, &noise(n * k, 3), Some(&noise(n, 4)), &mut packed);
                        packed
                    };
                    let (first, last) = (pack(c, in_c), pack(out_c, c));
                    let x = noise(n * h * w * in_c, 5);
                    let residual = noise(window.out_pixels() * out_c, 6);
                    let first = Pointwise { act: Act::HSwish, packed: &first, residual: None };
                    let last = Pointwise { act: Act::None, packed: &last, residual: Some(&residual) };
                    let (first, last) = (before.then_some(first), after.then_some(last));
                    let channels = [in_c, c, out_c];
                    let expected = apart(&window, channels, first, Act::Relu6, &packed, last, &x);
                    for isa in Isa::available() {
                        for threads in [1, 3] {
                            let mut scratch = vec![f32::NAN; scratch_len(&window, c, before, after, threads)];
                            let mut y = vec![f32::NAN; expected.len()];
                            let (team, serial) = (Team(threads), Serial);
                            let workers: &dyn Workers = if threads == 1 { &serial } else { &team };
                            run(
                                isa,
                                workers,
                                &window,
                                channels,
                                first,
                                Act::Relu6,
                                &packed,
                                last,
                                &x,
                                &mut scratch,
                                &mut y,
                            );
                            assert!(y == expected, "{isa:?} {threads} {window:?} {before} {after}");
                            cases += 1;
                        }
                    }
                }
            }
        }
        assert!(cases >= 150 && several >= 8, "{cases} cases, {several} in several bands");
    }

    #[test]
    #[should_panic(expected = "scratch_len")]
    fn short_scratch_is_refused() {
        let window = window(1, 4, 4, 3, 1, 1, 1);
        let packed = [0.0; 80];
        let mut scratch = vec![0.0; scratch_len(&window, 8, false, true, 1) - 1];
        let after =
            Pointwise { act: Act::None, packed: &vec![0.0; pointwise::packed_len(3, 8)], residual: None };
        let (x, mut y) = ([0.0; 128], [0.0; 48]);
        run(
            Isa::scalar(),
            &Serial,
            &window,
            [8, 8, 3],
            None,
            Act::None,
            &packed,
            Some(after),
            &x,
            &mut scratch,
            &mut y,
        );
    }
}
