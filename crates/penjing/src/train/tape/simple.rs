//! Everything that is no convolution, linear layer or normalization.

use std::ops::Range;

use penjing_kernels::{Serial, batch_norm, elementwise, layout, pool, softmax};
use rayon::prelude::*;

use super::{OwnedLazy, Run, norm::read, parts, plan::Work, round};
use crate::random::SplitMix64;

impl Run<'_> {
    /// Writes a gradient, or adds to it.
    pub(super) fn put(&self, adds: bool, dx: &mut [f32], write: impl FnOnce(&mut [f32])) {
        if !adds {
            return write(dx);
        }
        self.scratch.with(dx.len(), |fresh| {
            write(fresh);
            elementwise::accumulate(self.isa, fresh, dx);
        });
    }

    pub(super) fn simple_forward(&self, arena: &mut [f32]) {
        let unit = &self.plan.units[self.unit];
        let output = self.output();
        let (isa, [_, h, w, c]) = (self.isa, output.shape);
        let to = output.stored.clone();
        let len = output.image();
        match &unit.work {
            Work::Input | Work::Layer(_) | Work::Norm { .. } => {}
            Work::Add => {
                let lazies = [self.lazy(0), self.lazy(1)];
                let from = [self.input(0).stored.clone(), self.input(1).stored.clone()];
                let [a, b] = lazies.each_ref().map(|lazy| lazy.as_ref().map(OwnedLazy::get));
                let sum = |x: &[f32], x2: &[f32], y: &mut [f32]| {
                    batch_norm::apply_sum(isa, c, a.as_ref(), x, b.as_ref(), x2, y);
                };
                if from[0] == from[1] {
                    let [x, y] = parts(arena, [from[0].clone(), to]);
                    y.par_chunks_mut(len).zip(x.par_chunks(len)).for_each(|(y, x)| sum(x, x, y));
                } else {
                    let [x, x2, y] = parts(arena, [from[0].clone(), from[1].clone(), to]);
                    let images = y.par_chunks_mut(len).zip(x.par_chunks(len)).zip(x2.par_chunks(len));
                    images.for_each(|((y, x), x2)| sum(x, x2, y));
                }
            }
            Work::Mul => {
                let same = self.input(0).shape == self.input(1).shape;
                let (a, b) = (self.input(0).stored.clone(), self.input(1).stored.clone());
                if a == b {
                    let [x, y] = parts(arena, [a, to]);
                    return elementwise::multiply(isa, x, x, y);
                }
                let [a, b, y] = parts(arena, [a, b, to]);
                let b_len = self.input(1).image();
                let images = y.par_chunks_mut(len).zip(a.par_chunks(len)).zip(b.par_chunks(b_len));
                images.for_each(|((y, a), b)| {
                    if same {
                        elementwise::multiply(isa, a, b, y);
                    } else {
                        elementwise::scale_channels(isa, 1, h * w, c, a, b, y);
                    }
                });
            }
            Work::Concat => {
                let mut at = 0;
                for position in 0..unit.inputs.len() {
                    let count = self.input(position).channels();
                    let [x, y] = parts(arena, [self.input(position).stored.clone(), to.clone()]);
                    let images = y.par_chunks_mut(len).zip(x.par_chunks(h * w * count));
                    images.for_each(|(y, x)| layout::copy_channels(h * w, count, x, count, 0, y, c, at));
                    at += count;
                }
            }
            Work::Slice { start } => {
                let all = self.input(0).channels();
                self.each_image(arena, to, |x, y| layout::copy_channels(h * w, c, x, all, *start, y, c, 0));
            }
            Work::ChannelShuffle { groups } => {
                self.each_image(arena, to, |x, y| layout::shuffle(h * w, c, *groups, x, y));
            }
            Work::Pad { padding } => {
                let [_, in_h, in_w, _] = self.input(0).shape;
                self.each_image(arena, to, |x, y| layout::pad(1, in_h, in_w, c, *padding, 0.0, x, y));
            }
            Work::Act(act) => self.each_image(arena, to, |x, y| elementwise::activate(isa, *act, x, y)),
            Work::MaxPool { window } => {
                self.each_image(arena, to, |x, y| pool::max(isa, &Serial, window, c, x, y));
            }
            Work::AvgPool { window, include_pad } => {
                self.each_image(arena, to, |x, y| pool::average(isa, &Serial, window, c, *include_pad, x, y));
            }
            Work::GlobalAvgPool => {
                let lazy = self.lazy(0);
                let input = self.input(0);
                let (pixels, in_len) = (input.shape[1] * input.shape[2], input.image());
                let scratch_len = if lazy.is_some() { in_len } else { 0 };
                self.each_image(arena, to, |x, y| {
                    self.scratch.with(scratch_len, |scratch| {
                        let x = read(isa, c, lazy.as_ref(), x, scratch);
                        pool::global_average(isa, 1, pixels, c, x, y);
                    });
                });
            }
            Work::Flatten => self.each_image(arena, to, |x, y| y.copy_from_slice(x)),
            Work::Softmax => self.each_image(arena, to, |x, y| softmax::run(h * w, c, x, y)),
            Work::Dropout { rate } => {
                let [x, y] = parts(arena, [self.input(0).stored.clone(), to]);
                let images = y.par_chunks_mut(len).zip(x.par_chunks(len)).enumerate();
                images.for_each(|(image, (y, x))| self.drop_out(*rate, image, x, y));
            }
            Work::Round(quant) => self.each_image(arena, to, |x, y| round::round(isa, *quant, x, y)),
        }
    }

    /// One input, image by image.
    fn each_image(&self, arena: &mut [f32], to: Range<usize>, work: impl Fn(&[f32], &mut [f32]) + Sync) {
        let [x, y] = parts(arena, [self.input(0).stored.clone(), to]);
        let images = y.par_chunks_mut(self.output().image()).zip(x.par_chunks(self.input(0).image()));
        images.for_each(|(y, x)| work(x, y));
    }

    /// Zeroes a share of the values and scales the others, by randomness of its own for each image.
    fn drop_out(&self, rate: f32, image: usize, x: &[f32], y: &mut [f32]) {
        let Some(seed) = self.dropout else { return y.copy_from_slice(x) };
        let mut random =
            SplitMix64::new(SplitMix64::new(seed ^ ((self.unit as u64) << 32 | image as u64)).next_u64());
        let factor = if rate < 1.0 { 1.0 / (1.0 - rate) } else { 0.0 };
        for (y, x) in y.iter_mut().zip(x) {
            *y = if random.uniform() < f64::from(rate) { 0.0 } else { x * factor };
        }
    }

    pub(super) fn simple_backward(&self, arena: &mut [f32]) {
        let unit = &self.plan.units[self.unit];
        let output = self.output();
        let (isa, [_, h, w, c]) = (self.isa, output.shape);
        let de = self.gradient();
        let len = output.image();
        match &unit.work {
            Work::Input | Work::Layer(_) | Work::Norm { .. } => {}
            Work::Add => {
                for position in 0..2 {
                    // An input that nobody else reads shares the sum's gradient.
                    let Some((to, adds)) = self.onward(position).filter(|(to, _)| *to != de) else {
                        continue;
                    };
                    let [de, dx] = parts(arena, [de.clone(), to]);
                    dx.par_chunks_mut(len).zip(de.par_chunks(len)).for_each(|(dx, de)| {
                        if adds { elementwise::accumulate(isa, de, dx) } else { dx.copy_from_slice(de) }
                    });
                }
            }
            Work::Mul => {
                let same = self.input(0).shape == self.input(1).shape;
                for position in 0..2 {
                    let Some((to, adds)) = self.onward(position) else { continue };
                    let other = self.input(1 - position);
                    let [other_values, de, dx] = parts(arena, [other.stored.clone(), de.clone(), to]);
                    let (in_len, other_len) = (self.input(position).image(), other.image());
                    let images = dx
                        .par_chunks_mut(in_len)
                        .zip(de.par_chunks(len))
                        .zip(other_values.par_chunks(other_len));
                    images.for_each(|((dx, de), other)| {
                        self.put(adds, dx, |dx| {
                            if same {
                                elementwise::multiply(isa, de, other, dx);
                            } else if position == 0 {
                                elementwise::scale_channels(isa, 1, h * w, c, de, other, dx);
                            } else {
                                elementwise::channel_products(isa, 1, h * w, c, de, other, dx);
                            }
                        });
                    });
                }
            }
            Work::Concat => {
                let mut at = 0;
                for position in 0..unit.inputs.len() {
                    let count = self.input(position).channels();
                    self.send(arena, position, |_, de, dx| {
                        layout::copy_channels(h * w, count, de, c, at, dx, count, 0);
                    });
                    at += count;
                }
            }
            Work::Slice { start } => {
                let all = self.input(0).channels();
                self.send(arena, 0, |_, de, dx| {
                    dx.fill(0.0);
                    layout::copy_channels(h * w, c, de, c, 0, dx, all, *start);
                });
            }
            Work::ChannelShuffle { groups } => {
                self.send(arena, 0, |_, de, dx| layout::shuffle(h * w, c, c / groups, de, dx));
            }
            Work::Pad { padding } => {
                let [_, in_h, in_w, _] = self.input(0).shape;
                self.send(arena, 0, |_, de, dx| layout::crop(1, in_h, in_w, c, *padding, de, dx));
            }
            Work::Act(act) => {
                self.send_with_input(arena, |_, x, de, dx| {
                    batch_norm::activation_gradient(isa, c, *act, de, x, dx, &mut vec![0.0; c]);
                });
            }
            Work::MaxPool { window } => {
                self.send_with_input(arena, |_, x, de, dx| pool::max_gradient(window, c, x, de, dx));
            }
            Work::AvgPool { window, include_pad } => {
                self.send(arena, 0, |_, de, dx| pool::average_gradient(window, c, *include_pad, de, dx));
            }
            Work::GlobalAvgPool => {
                let pixels = self.input(0).shape[1] * self.input(0).shape[2];
                self.send(arena, 0, |_, de, dx| pool::global_average_gradient(1, pixels, c, de, dx));
            }
            Work::Flatten => self.send(arena, 0, |_, de, dx| dx.copy_from_slice(de)),
            Work::Softmax => {
                let Some((to, adds)) = self.onward(0) else { return };
                let [y, de, dx] = parts(arena, [output.stored.clone(), de, to]);
                let images = dx.par_chunks_mut(len).zip(de.par_chunks(len)).zip(y.par_chunks(len));
                images.for_each(|((dx, de), y)| {
                    self.put(adds, dx, |dx| softmax::gradient(h * w, c, y, de, dx))
                });
            }
            Work::Dropout { rate } => {
                self.send(arena, 0, |image, de, dx| self.drop_out(*rate, image, de, dx));
            }
            Work::Round(quant) => {
                self.send_with_input(arena, |_, x, de, dx| round::gradient(*quant, de, x, dx));
            }
        }
    }

    /// The gradient to one input, image by image: `write(image, de, dx)`.
    fn send(&self, arena: &mut [f32], position: usize, write: impl Fn(usize, &[f32], &mut [f32]) + Sync) {
        let Some((to, adds)) = self.onward(position) else { return };
        let [de, dx] = parts(arena, [self.gradient(), to]);
        let images =
            dx.par_chunks_mut(self.input(position).image()).zip(de.par_chunks(self.output().image()));
        images.enumerate().for_each(|(image, (dx, de))| self.put(adds, dx, |dx| write(image, de, dx)));
    }

    /// The same where the input itself is needed: `write(image, x, de, dx)`.
    fn send_with_input(&self, arena: &mut [f32], write: impl Fn(usize, &[f32], &[f32], &mut [f32]) + Sync) {
        let Some((to, adds)) = self.onward(0) else { return };
        let in_len = self.input(0).image();
        let [x, de, dx] = parts(arena, [self.input(0).stored.clone(), self.gradient(), to]);
        let images =
            dx.par_chunks_mut(in_len).zip(de.par_chunks(self.output().image())).zip(x.par_chunks(in_len));
        images
            .enumerate()
            .for_each(|(image, ((dx, de), x))| self.put(adds, dx, |dx| write(image, x, de, dx)));
    }
}
