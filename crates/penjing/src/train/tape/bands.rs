//! Depthwise convolutions, a band of rows at a time: what is made on the way, normalized values and gradients of raw ones,
//! stays in the cache. The maps and the gradients of weights are those of whole images, bit for bit; sums over pixels are
//! rounded where a band ends, which depends on shapes alone.

use std::ops::Range;

use penjing_kernels::{Act, Serial, Window, depthwise, elementwise};

use super::{
    OwnedLazy, Run,
    layer::{Backward, Partial},
    norm::read,
};

/// Values of what an output band sees.
const BAND: usize = 32 * 1024;

/// Output rows of a band: as many as see no more than [`BAND`] values, but at least as many as it reaches down, so that
/// little is kept for the next band. Even, since the kernels take pairs.
fn band(window: &Window, c: usize) -> usize {
    if window.stride_h > reach(window) {
        // Some input rows are seen by nobody.
        return window.out_h;
    }
    let fit = BAND / (window.in_w * c).max(1) / window.stride_h;
    fit.max(reach(window)).next_multiple_of(2).min(window.out_h)
}

/// Input rows from the first to the last that an output row sees.
fn reach(window: &Window) -> usize {
    (window.kernel_h - 1) * window.dilation_h + 1
}

/// Input rows that output rows see.
fn seen(window: &Window, rows: &Range<usize>) -> Range<usize> {
    let row = |row: usize| row.saturating_sub(window.pad_top).min(window.in_h);
    row(rows.start * window.stride_h)..row((rows.end - 1) * window.stride_h + reach(window))
}

/// The first output row that sees an input row or one below it.
fn first_to_see(window: &Window, row: usize) -> usize {
    (row + window.pad_top + 1).saturating_sub(reach(window)).div_ceil(window.stride_h)
}

/// The window between some input and some output rows.
fn between(window: &Window, input: &Range<usize>, output: &Range<usize>) -> Window {
    Window {
        in_h: input.len(),
        out_h: output.len(),
        // Less than nothing only where no row is seen.
        pad_top: (window.pad_top + input.start).saturating_sub(output.start * window.stride_h),
        ..*window
    }
}

/// Rows of a map that are at hand.
struct Rows<'a> {
    values: &'a mut [f32],
    /// Values of a row.
    len: usize,
    rows: Range<usize>,
}

impl<'a> Rows<'a> {
    fn new(values: &'a mut [f32], len: usize) -> Self {
        Rows { values, len, rows: 0..0 }
    }

    /// Forgets the rows above `rows` and calls `make` for those that are not at hand.
    fn advance(&mut self, rows: Range<usize>, make: impl FnOnce(Range<usize>, &mut [f32])) {
        let fresh = self.rows.end.clamp(rows.start, rows.end)..rows.end;
        let kept = (rows.start - self.rows.start).min(self.rows.len());
        self.values.copy_within(kept * self.len..self.rows.len() * self.len, 0);
        let to = (fresh.start - rows.start) * self.len..(fresh.end - rows.start) * self.len;
        self.rows = rows;
        make(fresh, &mut self.values[to]);
    }

    fn get(&self, rows: &Range<usize>) -> &[f32] {
        &self.values[(rows.start - self.rows.start) * self.len..(rows.end - self.rows.start) * self.len]
    }
}

/// Values of working memory of one piece: rows of x, of dy and of dx.
fn room(window: &Window, c: usize) -> [usize; 3] {
    let rows = band(window, c);
    let x = ((rows - 1) * window.stride_h + reach(window)).min(window.in_h);
    let dy = (rows + reach(window)).min(window.out_h);
    let dx = (rows * window.stride_h + reach(window)).min(window.in_h);
    [x * window.in_w * c, dy * window.out_w * c, dx * window.in_w * c]
}

pub(super) fn scratch_len(window: &Window, c: usize) -> usize {
    room(window, c).iter().sum()
}

impl Run<'_> {
    /// An image forward.
    pub(super) fn bands_forward(
        &self,
        window: &Window,
        c: usize,
        act: Act,
        packed: &[f32],
        x: &[f32],
        lazy: Option<&OwnedLazy>,
        y: &mut [f32],
    ) {
        let Some(lazy) = lazy else {
            return depthwise::run(self.isa, &Serial, window, c, act, x, packed, y);
        };
        let ([len, ..], row) = (room(window, c), window.in_w * c);
        self.scratch.with(len, |scratch| {
            let mut xs = Rows::new(scratch, row);
            let rows = band(window, c);
            for (index, y) in y.chunks_mut(rows * window.out_w * c).enumerate() {
                let output = index * rows..((index + 1) * rows).min(window.out_h);
                let input = seen(window, &output);
                xs.advance(input.clone(), |rows, to| {
                    read(self.isa, c, Some(lazy), &x[rows.start * row..rows.end * row], to);
                });
                let part = between(window, &input, &output);
                depthwise::run(self.isa, &Serial, &part, c, act, xs.get(&input), packed, y);
            }
        });
    }

    /// An image backward: its gradients are added to those of `partial`, that of the input goes to `dx`, which with `adds`
    /// has another's already.
    pub(super) fn bands_backward(
        &self,
        window: &Window,
        c: usize,
        job: &Backward,
        image: usize,
        partial: &mut Partial,
        mut dx: Option<&mut [f32]>,
        adds: bool,
    ) {
        let (in_row, out_row) = (window.in_w * c, window.out_w * c);
        let (x0, y0) = (image * window.in_h * in_row, image * window.out_h * out_row);
        let x_of = |rows: &Range<usize>| &job.x[x0 + rows.start * in_row..x0 + rows.end * in_row];
        let (rows, [x_len, dy_len, dx_len]) = (band(window, c), room(window, c));
        self.scratch.with(x_len + dy_len + dx_len, |scratch| {
            let (xs, scratch) = scratch.split_at_mut(x_len);
            let (dys, dxs) = scratch.split_at_mut(dy_len);
            let (mut xs, mut dys) = (Rows::new(xs, in_row), Rows::new(dys, out_row));
            // Input rows whose gradient is known.
            let mut done = 0;
            for from in (0..window.out_h).step_by(rows) {
                let output = from..(from + rows).min(window.out_h);
                // Earlier rows of dy are needed as long as rows of dx are to come.
                let onward = dx.is_some() && done < window.in_h;
                let first = if onward { first_to_see(window, done).min(from) } else { from };
                dys.advance(first..output.end, |rows, dy| {
                    let range = y0 + rows.start * out_row..y0 + rows.end * out_row;
                    job.delta(self, c, range, dy, &mut partial.bias);
                });
                if job.layer.learns {
                    let input = seen(window, &output);
                    let x = if let Some(lazy) = job.lazy {
                        xs.advance(input.clone(), |rows, to| {
                            read(self.isa, c, Some(lazy), x_of(&rows), to);
                        });
                        xs.get(&input)
                    } else {
                        x_of(&input)
                    };
                    let part = between(window, &input, &output);
                    let dy = dys.get(&output);
                    depthwise::weight_gradient(self.isa, &Serial, &part, c, dy, x, &mut partial.weights);
                }
                if let Some(dx) = dx.as_deref_mut() {
                    let end = if output.end == window.out_h {
                        window.in_h
                    } else {
                        (output.end * window.stride_h).saturating_sub(window.pad_top).clamp(done, window.in_h)
                    };
                    let (input, sees) = (done..end, first..output.end);
                    let dx = &mut dx[done * in_row..end * in_row];
                    let part = between(window, &input, &sees);
                    let to = if adds { &mut dxs[..dx.len()] } else { &mut *dx };
                    let dy = dys.get(&sees);
                    depthwise::input_gradient(self.isa, &Serial, &part, c, dy, &job.state.packed, to);
                    if adds {
                        elementwise::accumulate(self.isa, &dxs[..dx.len()], dx);
                    }
                    partial.sum(self, job, dx, x0 + done * in_row);
                    done = end;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use penjing_kernels::{Isa, pointwise};
    use penjing_runtime::{
        graph::Graph,
        op::{Conv, Op},
    };

    use super::*;
    use crate::{
        train::{
            parameters::Parameters,
            tape::{Policy, Statistics, Tape, tests::noise},
        },
        zoo::random_weights,
    };

    /// A pointwise convolution, so that the input's gradient is asked for, and a depthwise one; the gradients beside those of
    /// the kernels on whole maps, also where only the second is learnt.
    #[test]
    fn bands_equal_whole_maps() {
        let (h, w, c) = (97, 64, 24);
        let mut several = 0;
        for (kernel, stride, dilation, padding) in [
            (3, 1, 1, [1, 1, 1, 1]),
            (3, 2, 1, [0, 1, 0, 1]),
            (5, 2, 1, [2, 2, 2, 2]),
            (5, 1, 1, [2, 2, 2, 2]),
            (3, 1, 2, [2, 2, 2, 2]),
            (3, 2, 3, [1, 0, 6, 0]),
            (3, 2, 1, [0, 0, 0, 0]),
            (2, 3, 1, [0, 0, 1, 0]),
            (3, 1, 1, [4, 5, 1, 1]),
            (3, 1, 1, [0, 150, 1, 1]),
        ] {
            let mut graph = Graph::default();
            let image = graph.push("image", Op::Input { shape: [1, h, w, 2] }, &[]).unwrap();
            let wide = graph.push("wide", Op::Conv(Conv::new(c, 1, 1)), &[image]).unwrap();
            let conv = Conv { groups: c, dilation: [dilation; 2], padding, ..Conv::new(c, kernel, stride) };
            let window = conv.window([1, h, w, c]).unwrap();
            graph.push("deep", Op::Conv(conv), &[wide]).unwrap();
            several += usize::from(band(&window, c) < window.out_h);
            let parameters = Parameters::new(&graph, &random_weights(&graph, 1)).unwrap();
            let list = &parameters.list;
            let at = |name: &str| list.iter().position(|parameter| parameter.name == name).unwrap();
            let (input, dy) = (noise(h * w * 2, 2), noise(window.out_pixels() * c, 3));

            let [gradients, of_the_last] = [0, 2].map(|first| {
                let policy = Policy { first, ..Policy::whole(Statistics::Frozen) };
                let mut tape = Tape::new(&graph, &policy).unwrap();
                tape.prepare(&parameters);
                tape.input().copy_from_slice(&input);
                tape.forward(None);
                let mut gradients = tape.gradients(&parameters);
                tape.backward(&dy, None, &mut gradients);
                tape.finish(&parameters, &mut gradients);
                gradients
            });
            assert!(of_the_last[at("wide.weight")].is_empty());

            let isa = Isa::detect();
            let mut packed = vec![0.0; pointwise::packed_len(c, 2)];
            let bias = list.iter().find(|p| p.name == "wide.bias").map(|p| &p.values[..]);
            pointwise::pack(c, 2, &list[at("wide.weight")].values, bias, &mut packed);
            let mut x = vec![0.0; h * w * c];
            pointwise::run(isa, &Serial, h * w, 2, c, Act::None, &input, &packed, None, &mut x);
            let mut taps = vec![0.0; window.taps() * c];
            depthwise::weight_gradient(isa, &Serial, &window, c, &dy, &x, &mut taps);
            let mut expected = vec![0.0; taps.len()];
            depthwise::unpack(c, window.taps(), &taps, &mut expected);
            assert!(gradients[at("deep.weight")] == expected, "{window:?}");
            assert!(of_the_last[at("deep.weight")] == expected, "{window:?}");

            let mut packed = vec![0.0; depthwise::packed_len(c, window.taps())];
            depthwise::pack(c, window.taps(), &list[at("deep.weight")].values, None, &mut packed);
            let mut dx = vec![f32::NAN; x.len()];
            depthwise::input_gradient(isa, &Serial, &window, c, &dy, &packed, &mut dx);
            for (channel, ours) in gradients[at("wide.weight")].chunks_exact(2).enumerate() {
                for (k, ours) in ours.iter().enumerate() {
                    let products =
                        (0..h * w).map(|i| f64::from(dx[i * c + channel]) * f64::from(input[i * 2 + k]));
                    let (sum, size) = products.fold((0.0, 0.0), |(s, a), p: f64| (s + p, a + p.abs()));
                    assert!((f64::from(*ours) - sum).abs() <= 1e-5 * size, "{window:?} {ours} {sum}");
                }
            }
        }
        assert!(several >= 8, "{several} of several bands");
    }
}
