//! Convolutions and linear layers, with normalization and activation.

use std::ops::Range;

use penjing_kernels::{Act, Serial, batch_norm, conv, depthwise, elementwise, pointwise};
use rayon::prelude::*;

use super::{
    OwnedLazy, Run, bands,
    norm::{Moments, NormState, Summing, fold, read},
    parts,
    plan::{Form, Layer},
};
use crate::train::parameters::{Gradients, Parameters};

/// What a layer keeps from step to step.
#[derive(Debug, Default)]
pub(super) struct LayerState {
    /// The weights with a frozen normalization folded in; dense windows only.
    weights: Vec<f32>,
    pub(super) packed: Vec<f32>,
    /// Packed for the input's gradient; matrix products only.
    transposed: Vec<f32>,
    /// Frozen normalization: the factor on each output channel.
    factor: Vec<f32>,
    /// With the batch's statistics: how the raw result is read.
    norm: NormState,
    /// Sums over the batches of a step: the gradient of the bias that stands in `packed`.
    bias_gradient: Vec<f64>,
    /// Depthwise: the weights' gradient, `[taps][c]`.
    tap_gradient: Vec<f32>,
}

/// Most pieces whose sums are merged.
pub(super) const PIECES: usize = 8;
/// Below this work is not shared out.
const SMALL: usize = 100_000;

/// How the rows of a matrix product are cut: rows of a block, and of a piece.
fn row_cut(m: usize, k: usize, n: usize) -> [usize; 2] {
    // Blocks of x and y stay in half of a second-level cache of 1 MiB; whole register tiles.
    let block = (65_536 / (k + n)).clamp(56, 448) / 56 * 56;
    let pieces =
        if m.saturating_mul(k).saturating_mul(n) < SMALL { 1 } else { m.div_ceil(block).clamp(1, PIECES) };
    [block, m.div_ceil(block).div_ceil(pieces) * block]
}

/// Whether there are so few pixels that the gradient of the weights is better split by weights than by pixels.
fn by_weights(m: usize, k: usize, n: usize) -> bool {
    n * k * 2 * PIECES > m * (n + k)
}

fn image_cut(images: usize) -> usize {
    images.div_ceil(PIECES).max(1)
}

/// Values of working memory for one piece.
pub(super) fn scratch_len(layer: &Layer) -> usize {
    match layer.form {
        Form::Rows { m, k, n } => {
            let [block, _] = row_cut(m, k, n);
            let blocks = block.min(m) * (2 * k + n);
            if by_weights(m, k, n) { blocks.max(m * (2 * k + n)) } else { blocks }
        }
        Form::Depthwise { window, c } => bands::scratch_len(&window, c),
        Form::Dense { window, in_c, out_c, groups } => {
            (2 * window.in_h * window.in_w) * in_c
                + window.out_h * window.out_w * out_c
                + dense_scratch(layer, groups)
        }
    }
}

fn dense_scratch(layer: &Layer, groups: usize) -> usize {
    let Form::Dense { window, in_c, out_c, .. } = layer.form else { return 0 };
    conv::scratch_len(&window, in_c, groups, 1)
        .max(conv::weight_gradient_scratch_len(&window, in_c, out_c, groups, 1))
        .max(conv::input_gradient_scratch_len(&window, in_c, out_c, groups, 1))
}

/// Values of the packed weights.
pub(super) fn packed_len(layer: &Layer) -> usize {
    match layer.form {
        Form::Rows { k, n, .. } => pointwise::packed_len(n, k) + pointwise::packed_len(k, n),
        Form::Depthwise { window, c } => 2 * depthwise::packed_len(c, window.taps()),
        Form::Dense { window, in_c, out_c, groups } => {
            2 * conv::packed_len(groups, out_c, window.taps() * in_c / groups)
        }
    }
}

impl LayerState {
    pub(super) fn new(layer: &Layer) -> Self {
        let channels = layer.channels();
        let tap_gradient = match layer.form {
            Form::Depthwise { window, c } if layer.learns => vec![0.0; window.taps() * c],
            _ => Vec::new(),
        };
        LayerState {
            norm: NormState::identity(channels),
            bias_gradient: vec![0.0; channels],
            tap_gradient,
            ..LayerState::default()
        }
    }

    /// Folds and packs. `onward` says whether the input's gradient will be asked for.
    pub(super) fn prepare(&mut self, layer: &Layer, parameters: &Parameters, onward: bool) {
        let channels = layer.channels();
        let weight = &parameters.list[layer.weight].values;
        let mut bias =
            layer.bias.map_or_else(|| vec![0.0; channels], |bias| parameters.list[bias].values.clone());
        let mut folded = None;
        if let Some(norm) = &layer.norm {
            if norm.batch {
                self.norm.prepare(norm, parameters);
            } else {
                self.factor = fold(norm, parameters, &mut bias);
                let mut scaled = weight.clone();
                let per_output = weight.len() / channels;
                for (row, factor) in scaled.chunks_exact_mut(per_output).zip(&self.factor) {
                    row.iter_mut().for_each(|w| *w *= factor);
                }
                folded = Some(scaled);
            }
        }
        let weight = folded.as_deref().unwrap_or(weight);
        match layer.form {
            Form::Rows { k, n, .. } => {
                self.packed.resize(pointwise::packed_len(n, k), 0.0);
                pointwise::pack(n, k, weight, Some(&bias), &mut self.packed);
                if onward {
                    self.transposed.resize(pointwise::packed_len(k, n), 0.0);
                    pointwise::pack_transposed(n, k, weight, &mut self.transposed);
                }
            }
            Form::Depthwise { window, c } => {
                self.packed.resize(depthwise::packed_len(c, window.taps()), 0.0);
                depthwise::pack(c, window.taps(), weight, Some(&bias), &mut self.packed);
            }
            Form::Dense { window, in_c, out_c, groups } => {
                let k = window.taps() * in_c / groups;
                self.packed.resize(conv::packed_len(groups, out_c, k), 0.0);
                conv::pack(groups, out_c, k, weight, Some(&bias), &mut self.packed);
                if onward {
                    weight.clone_into(&mut self.weights);
                }
            }
        }
    }

    /// Mean and (biased) variance of the last batch.
    pub(super) fn statistics(&self) -> [&[f64]; 2] {
        self.norm.statistics()
    }

    /// What a reader needs to sum up the result's gradient, and where it leaves the sums.
    pub(super) fn summing(&self, layer: &Layer) -> Summing {
        self.norm.summing(layer.act)
    }

    pub(super) fn summed(&self, pieces: Vec<Moments>) {
        self.norm.summed(pieces);
    }

    /// How the raw result is read.
    pub(super) fn lazy(&self, layer: &Layer) -> OwnedLazy {
        self.norm.lazy(layer.act)
    }

    /// Turns gradients of folded weights into those of the parameters, and stores those of the bias.
    pub(super) fn finish(&mut self, layer: &Layer, parameters: &Parameters, gradients: &mut Gradients) {
        if let Form::Depthwise { window, c } = layer.form {
            depthwise::unpack(c, window.taps(), &self.tap_gradient, &mut gradients[layer.weight]);
            self.tap_gradient.fill(0.0);
        }
        let sums = &mut self.bias_gradient;
        let bias = layer.bias.map(|bias| &parameters.list[bias].values);
        match &layer.norm {
            Some(norm) if !norm.batch => {
                let weight = &parameters.list[layer.weight].values;
                let [mean, var] = [norm.mean, norm.var].map(|place| &parameters.list[place].values);
                let per_output = weight.len() / sums.len();
                let rows = weight.par_chunks_exact(per_output).zip(&self.factor);
                let rows = gradients[layer.weight].par_chunks_exact_mut(per_output).zip(rows);
                let products: Vec<f64> = rows
                    .with_min_len(4096_usize.div_ceil(per_output))
                    .map(|(gradient, (weight, factor))| {
                        let terms = weight.iter().zip(&*gradient).map(|(w, g)| f64::from(*w) * f64::from(*g));
                        let product = terms.sum();
                        gradient.iter_mut().for_each(|g| *g *= factor);
                        product
                    })
                    .collect();
                for c in 0..sums.len() {
                    let offset = bias.map_or(0.0, |bias| f64::from(bias[c])) - f64::from(mean[c]);
                    let deviation = (f64::from(var[c]) + f64::from(norm.eps)).sqrt();
                    gradients[norm.gamma][c] = ((products[c] + offset * sums[c]) / deviation) as f32;
                    gradients[norm.beta][c] = sums[c] as f32;
                    if let Some(place) = layer.bias {
                        gradients[place][c] = (sums[c] * f64::from(self.factor[c])) as f32;
                    }
                }
            }
            // A mean that is subtracted takes every bias with it.
            Some(_) => {}
            None => {
                if let Some(place) = layer.bias {
                    gradients[place].iter_mut().zip(sums.iter()).for_each(|(g, sum)| *g = *sum as f32);
                }
            }
        }
        sums.fill(0.0);
    }
}

/// How the gradient of a layer's raw result is made from that of its result.
enum Delta<'a> {
    /// Through the activation alone, the bias's gradient summed on the way.
    Plain(Act),
    /// Through activation and normalization: `a·g + b·y + k`.
    Normed { lazy: batch_norm::Lazy<'a>, a: &'a [f32], b: &'a [f32], k: &'a [f32] },
}

/// What a piece of the backward work hands back.
pub(super) struct Partial {
    pub bias: Vec<f64>,
    pub weights: Vec<f32>,
    /// Of the input's gradient.
    pub sums: Option<Moments>,
}

impl Run<'_> {
    pub(super) fn layer_forward(&self, layer: &Layer, state: &mut LayerState, arena: &mut [f32]) {
        let channels = layer.channels();
        let pieces = self.layer_raw(layer, state, layer.raw.clone(), layer.is_batch(), arena);
        if let Some(norm) = &layer.norm
            && norm.batch
        {
            state.norm.normalize(norm.eps, layer.raw.len() / channels, &pieces);
        }
        if layer.apart {
            let [raw, z] = parts(arena, [layer.raw.clone(), self.output().stored.clone()]);
            let lazy = state.lazy(layer);
            let rows = z.len().div_ceil(channels * 4 * PIECES) * channels;
            z.par_chunks_mut(rows.max(channels)).zip(raw.par_chunks(rows.max(channels))).for_each(
                |(z, raw)| {
                    batch_norm::apply(self.isa, channels, &lazy.get(), raw, z);
                },
            );
        }
    }

    /// Computes the raw result once more, for the backward half.
    pub(super) fn layer_again(&self, layer: &Layer, state: &LayerState, arena: &mut [f32]) {
        self.layer_raw(layer, state, self.output().kept.clone(), false, arena);
    }

    /// Computes the raw result into `y` of the arena, and with `observe` the moments of its pieces.
    fn layer_raw(
        &self,
        layer: &Layer,
        state: &LayerState,
        y: Range<usize>,
        observe: bool,
        arena: &mut [f32],
    ) -> Vec<Moments> {
        let lazy = self.lazy(0);
        let [x, y] = parts(arena, [self.input(0).stored.clone(), y]);
        // What waits to be read is stored as it is computed.
        let act = if layer.reads_later() { Act::None } else { layer.act };
        match layer.form {
            Form::Rows { m, k, n } => self.rows_forward([m, k, n], act, observe, state, x, lazy, y),
            Form::Depthwise { .. } | Form::Dense { .. } => {
                self.images_forward(layer, act, observe, state, x, lazy, y)
            }
        }
    }

    /// Where the backward half finds the raw result.
    fn raw(&self, layer: &Layer) -> Range<usize> {
        if layer.apart { layer.raw.clone() } else { self.output().kept.clone() }
    }

    fn rows_forward(
        &self,
        [m, k, n]: [usize; 3],
        act: Act,
        observe: bool,
        state: &LayerState,
        x: &[f32],
        lazy: Option<OwnedLazy>,
        y: &mut [f32],
    ) -> Vec<Moments> {
        let [block, piece] = row_cut(m, k, n);
        let work = |(y, x): (&mut [f32], &[f32])| {
            let mut moments = state.norm.moments();
            self.scratch.with(if lazy.is_some() { block * k } else { 0 }, |scratch| {
                for (y, x) in y.chunks_mut(block * n).zip(x.chunks(block * k)) {
                    let x = read(self.isa, k, lazy.as_ref(), x, scratch);
                    pointwise::run(self.isa, &Serial, y.len() / n, k, n, act, x, &state.packed, None, y);
                    if observe {
                        state.norm.observe(self.isa, y, &mut moments);
                    }
                }
            });
            moments
        };
        y.par_chunks_mut(piece * n).zip(x.par_chunks(piece * k)).map(work).collect()
    }

    fn images_forward(
        &self,
        layer: &Layer,
        act: Act,
        observe: bool,
        state: &LayerState,
        x: &[f32],
        lazy: Option<OwnedLazy>,
        y: &mut [f32],
    ) -> Vec<Moments> {
        let in_len = self.input(0).image();
        let work = |(y, x): (&mut [f32], &[f32])| {
            let mut moments = state.norm.moments();
            let (packed, lazy) = (&state.packed, lazy.as_ref());
            match layer.form {
                Form::Depthwise { window, c } => {
                    self.bands_forward(&window, c, act, packed, x, lazy, y);
                }
                Form::Dense { window, in_c, out_c, groups } => {
                    let own = conv::scratch_len(&window, in_c, groups, 1);
                    self.scratch.with(own + if lazy.is_some() { in_len } else { 0 }, |scratch| {
                        let (own, scratch) = scratch.split_at_mut(own);
                        let x = read(self.isa, in_c, lazy, x, scratch);
                        conv::run(
                            self.isa, &Serial, &window, in_c, out_c, groups, act, x, packed, None, own, y,
                        );
                    });
                }
                Form::Rows { .. } => {}
            }
            if observe {
                state.norm.observe(self.isa, y, &mut moments);
            }
            moments
        };
        y.par_chunks_mut(self.output().image()).zip(x.par_chunks(in_len)).map(work).collect()
    }

    pub(super) fn layer_backward(
        &self,
        layer: &Layer,
        state: &mut LayerState,
        arena: &mut [f32],
        gradients: &mut Gradients,
    ) {
        let lazy = self.lazy(0);
        let onward = self.onward(0);
        let reads_raw = layer.is_batch() || layer.act != Act::None;
        let ranges = [
            if layer.learns { self.input(0).kept.clone() } else { 0..0 },
            if reads_raw { self.raw(layer) } else { 0..0 },
            self.gradient(),
            onward.clone().map_or(0..0, |(range, _)| range),
        ];
        let [x, raw, de, dx] = parts(arena, ranges);
        // Without an activation and a normalization there is nothing to read.
        let raw: &[f32] = if reads_raw { raw } else { de };
        let owned = state.lazy(layer);
        let mut coefficients = [vec![], vec![], vec![]];
        let delta = match &layer.norm {
            Some(norm) if norm.batch => {
                coefficients = state.norm.coefficients(self.isa, norm, &owned, de, raw, gradients);
                let [a, b, k] = &coefficients;
                Delta::Normed { lazy: owned.get(), a, b, k }
            }
            _ => Delta::Plain(layer.act),
        };
        let dx = onward.map(|(_, adds)| (dx, adds));
        let maker = self.maker_to_tell();
        let summing = maker.map(|(layer, state)| state.summing(layer));
        let job = Backward {
            layer,
            state,
            delta: &delta,
            x,
            lazy: lazy.as_ref(),
            raw,
            de,
            summing: summing.as_ref(),
        };
        let mut partials = match layer.form {
            Form::Rows { m, k, n } if by_weights(m, k, n) => {
                vec![self.rows_backward_by_weights([m, k, n], &job, dx, &mut gradients[layer.weight])]
            }
            Form::Rows { m, k, n } => self.rows_backward([m, k, n], &job, dx),
            Form::Depthwise { .. } | Form::Dense { .. } => self.images_backward(&job, dx),
        };
        drop(coefficients);
        if let Some((_, state)) = maker {
            state.summed(partials.iter_mut().filter_map(|partial| partial.sums.take()).collect());
        }
        let into = match layer.form {
            Form::Depthwise { .. } => &mut state.tap_gradient,
            _ => &mut gradients[layer.weight],
        };
        for partial in &partials {
            state.bias_gradient.iter_mut().zip(&partial.bias).for_each(|(sum, part)| *sum += part);
        }
        if layer.learns && partials.iter().any(|partial| !partial.weights.is_empty()) {
            let chunk = into.len().div_ceil(PIECES).max(1024);
            into.par_chunks_mut(chunk).enumerate().for_each(|(index, into)| {
                for partial in &partials {
                    let from = &partial.weights[index * chunk..][..into.len()];
                    elementwise::accumulate(self.isa, from, into);
                }
            });
        }
    }

    fn rows_backward(
        &self,
        [m, k, n]: [usize; 3],
        job: &Backward,
        dx: Option<(&mut [f32], bool)>,
    ) -> Vec<Partial> {
        let [block, piece] = row_cut(m, k, n);
        let (dx, adds) = dx.map_or((None, false), |(dx, adds)| (Some(dx), adds));
        let mut slots = chunks_or_none(dx, piece * k, m.div_ceil(piece));
        let learns = job.layer.learns;
        let work = |(piece_index, dx): (usize, &mut Option<&mut [f32]>)| {
            let rows = piece_index * piece..((piece_index + 1) * piece).min(m);
            let mut partial = job.partial(n, if learns { n * k } else { 0 });
            self.scratch.with(block * (2 * k + n), |scratch| {
                let (dy, scratch) = scratch.split_at_mut(block * n);
                let (xs, dxs) = scratch.split_at_mut(block * k);
                for from in rows.clone().step_by(block) {
                    let to = (from + block).min(rows.end);
                    let count = to - from;
                    let dy = &mut dy[..count * n];
                    job.delta(self, n, from * n..to * n, dy, &mut partial.bias);
                    if learns {
                        let x = read(self.isa, k, job.lazy, &job.x[from * k..to * k], xs);
                        pointwise::weight_gradient(
                            self.isa,
                            &Serial,
                            count,
                            n,
                            k,
                            dy,
                            x,
                            &mut partial.weights,
                        );
                    }
                    if let Some(dx) = dx {
                        let dx = &mut dx[(from - rows.start) * k..(to - rows.start) * k];
                        let packed = &job.state.transposed;
                        let to = if adds { &mut dxs[..count * k] } else { &mut *dx };
                        pointwise::run(self.isa, &Serial, count, n, k, Act::None, dy, packed, None, to);
                        if adds {
                            elementwise::accumulate(self.isa, &dxs[..count * k], dx);
                        }
                        partial.sum(self, job, dx, from * k);
                    }
                }
            });
            partial
        };
        slots.par_iter_mut().enumerate().map(work).collect()
    }

    /// Few pixels, many weights: everything about the pixels first, then the weights shared out.
    fn rows_backward_by_weights(
        &self,
        [m, k, n]: [usize; 3],
        job: &Backward,
        dx: Option<(&mut [f32], bool)>,
        dw: &mut [f32],
    ) -> Partial {
        let mut bias = vec![0.0; n];
        let rows = m.div_ceil(PIECES).max(7);
        let team = Team(rayon::current_num_threads());
        self.scratch.with(m * (2 * k + n), |scratch| {
            let (dy, scratch) = scratch.split_at_mut(m * n);
            let (xs, dxs) = scratch.split_at_mut(m * k);
            let sums: Vec<Vec<f64>> = dy
                .par_chunks_mut(rows * n)
                .enumerate()
                .map(|(piece, dy)| {
                    let mut bias = vec![0.0; n];
                    job.delta(self, n, piece * rows * n..piece * rows * n + dy.len(), dy, &mut bias);
                    bias
                })
                .collect();
            for part in sums {
                bias.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
            if job.layer.learns {
                let x = match job.lazy {
                    None => job.x,
                    Some(lazy) => {
                        xs.par_chunks_mut(rows * k).zip(job.x.par_chunks(rows * k)).for_each(|(to, x)| {
                            batch_norm::apply(self.isa, k, &lazy.get(), x, to);
                        });
                        &*xs
                    }
                };
                pointwise::weight_gradient(self.isa, &team, m, n, k, dy, x, dw);
            }
            if let Some((dx, adds)) = dx {
                let packed = &job.state.transposed;
                let to = if adds { &mut *dxs } else { &mut *dx };
                pointwise::run(self.isa, &team, m, n, k, Act::None, dy, packed, None, to);
                if adds {
                    elementwise::accumulate(self.isa, dxs, dx);
                }
            }
        });
        Partial { bias, weights: Vec::new(), sums: None }
    }

    fn images_backward(&self, job: &Backward, dx: Option<(&mut [f32], bool)>) -> Vec<Partial> {
        let layer = job.layer;
        let channels = layer.channels();
        let (in_len, images) = (self.input(0).image(), self.output().shape[0]);
        let group = image_cut(images);
        let (dx, adds) = dx.map_or((None, false), |(dx, adds)| (Some(dx), adds));
        let mut slots = chunks_or_none(dx, group * in_len, images.div_ceil(group));
        let weights = match layer.form {
            Form::Depthwise { window, c } if layer.learns => window.taps() * c,
            Form::Dense { window, in_c, out_c, groups } if layer.learns => {
                out_c * window.taps() * in_c / groups
            }
            _ => 0,
        };
        let work = |(index, dx): (usize, &mut Option<&mut [f32]>)| {
            let mut partial = job.partial(channels, weights);
            for image in index * group..((index + 1) * group).min(images) {
                let first = (image - index * group) * in_len;
                let dx = dx.as_deref_mut().map(|dx| &mut dx[first..first + in_len]);
                match layer.form {
                    Form::Depthwise { window, c } => {
                        self.bands_backward(&window, c, job, image, &mut partial, dx, adds);
                    }
                    Form::Dense { .. } => self.dense_backward(job, image, &mut partial, dx, adds),
                    Form::Rows { .. } => {}
                }
            }
            partial
        };
        slots.par_iter_mut().enumerate().map(work).collect()
    }

    /// An image of a window over all channels of a group, backward, as [`bands_backward`](Self::bands_backward).
    fn dense_backward(
        &self,
        job: &Backward,
        image: usize,
        partial: &mut Partial,
        dx: Option<&mut [f32]>,
        adds: bool,
    ) {
        let Form::Dense { window, in_c, out_c, groups } = job.layer.form else { return };
        let (in_len, out_len) = (self.input(0).image(), self.output().image());
        let own = dense_scratch(job.layer, groups);
        self.scratch.with(out_len + 2 * in_len + own, |scratch| {
            let (dy, scratch) = scratch.split_at_mut(out_len);
            let (xs, scratch) = scratch.split_at_mut(in_len);
            let (dxs, own) = scratch.split_at_mut(in_len);
            job.delta(self, out_c, image * out_len..(image + 1) * out_len, dy, &mut partial.bias);
            if job.layer.learns {
                let x = read(self.isa, in_c, job.lazy, &job.x[image * in_len..(image + 1) * in_len], xs);
                let dw = &mut partial.weights;
                conv::weight_gradient(self.isa, &Serial, &window, in_c, out_c, groups, dy, x, own, dw);
            }
            if let Some(dx) = dx {
                let to = if adds { &mut *dxs } else { &mut *dx };
                let weights = &job.state.weights;
                conv::input_gradient(self.isa, &Serial, &window, in_c, out_c, groups, dy, weights, own, to);
                if adds {
                    elementwise::accumulate(self.isa, dxs, dx);
                }
                partial.sum(self, job, dx, image * in_len);
            }
        });
    }
}

/// What the pieces of a layer's backward half share.
pub(super) struct Backward<'a> {
    pub layer: &'a Layer,
    pub state: &'a LayerState,
    delta: &'a Delta<'a>,
    pub x: &'a [f32],
    pub lazy: Option<&'a OwnedLazy>,
    raw: &'a [f32],
    de: &'a [f32],
    /// Given if the input's gradient is to be summed up.
    summing: Option<&'a Summing>,
}

impl Partial {
    /// Sums up pixels of the input's gradient, which begin at value `from`, if that is asked for.
    pub fn sum(&mut self, run: &Run, job: &Backward, dx: &[f32], from: usize) {
        if let (Some(summing), Some(sums)) = (job.summing, &mut self.sums) {
            summing.add(run.isa, dx, &job.x[from..from + dx.len()], sums);
        }
    }
}

impl Backward<'_> {
    /// Empty sums for so many output channels and weights.
    fn partial(&self, channels: usize, weights: usize) -> Partial {
        let sums = self.summing.map(Summing::start);
        Partial { bias: vec![0.0; channels], weights: vec![0.0; weights], sums }
    }

    /// The gradient of the raw result for a range of values, whole pixels.
    pub fn delta(&self, run: &Run, channels: usize, range: Range<usize>, dy: &mut [f32], bias: &mut [f64]) {
        let (de, raw) = (&self.de[range.clone()], &self.raw[range]);
        match self.delta {
            Delta::Plain(act) => batch_norm::activation_gradient(run.isa, channels, *act, de, raw, dy, bias),
            Delta::Normed { lazy, a, b, k } => {
                batch_norm::gradient(run.isa, channels, Some(lazy), (a, b, k), de, raw, dy);
            }
        }
    }
}

/// Disjoint parts of a slice that may not be there.
fn chunks_or_none(slice: Option<&mut [f32]>, chunk: usize, count: usize) -> Vec<Option<&mut [f32]>> {
    match slice {
        Some(slice) => slice.chunks_mut(chunk).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}

/// The threads of rayon's current pool.
pub(super) struct Team(pub usize);

impl penjing_kernels::Workers for Team {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        (0..pieces).into_par_iter().for_each(|piece| task(piece, rayon::current_thread_index().unwrap_or(0)));
    }
}
