//! Pointwise convolution with weights of which most are zero: only the others are kept and multiplied.
//!
//! In `[N,H,W,C]` neighbouring values are channels, and what one output leaves out the next one needs. So a tile of pixels at a
//! time is turned round, a row for each channel; every weight then multiplies a row (Elsen et al., arXiv 1911.09723, who
//! keep maps that way round). What a block of outputs needs of a chunk of channels stands together, so that their rows stay
//! in the first-level cache; there those outputs come first that have most weights, in groups filled up with zeros, so that two
//! neighbours end at once and a processor rarely guesses wrongly when they do. The result has the bits of [`pointwise`](crate::pointwise) with the
//! zeros multiplied, where x is finite, but for the sign of a zero.

use core::ops::Range;

use crate::{
    Act, Isa, Workers, arch, fma, volume,
    workers::{MAX_PIECES, Shared, View, dispatch, part, pieces},
};

/// Most pixels that are turned round at a time, on any instruction set. A map is shared out evenly: 196, 784 and 3136 pixels are
/// 12¼, 49 and 196 vectors of sixteen.
pub(crate) const TILE: usize = 64;
/// Weights of an output that stand together.
pub(crate) const GROUP: usize = 4;
/// Most channels whose rows are multiplied before those of the next: 32 KiB of them; seven bits count them. Every chunk begins each output
/// anew and fills its last group up, so that few large ones are faster.
const CHUNK: usize = 128;
/// Outputs whose sums are kept at hand: 8 KiB of them; a byte counts them.
pub(crate) const BLOCK: usize = 32;

/// Whether [`run`] is faster than [`pointwise::run`](crate::pointwise::run) for m pixels and weights `[n][k]` of which `count`
/// are not zero: a matter of shapes, whatever the processor and the threads.
pub fn pays([m, k, n]: [usize; 3], count: usize) -> bool {
    let turned = TURN.saturating_mul(k + n);
    let dear = if m < MANY_PIXELS { DEARER } else { DEAR };
    let sparse = count.saturating_mul(dear).saturating_div(2).saturating_add(turned);
    m >= LEAST_PIXELS && k.min(n) >= 16 && sparse < k.saturating_mul(n)
}

/// A multiplication takes half as long as so many of the matrix product.
const DEAR: usize = 5;
/// And one for fewer than [`MANY_PIXELS`], of which a long vector or two holds all: finding their row takes longer than multiplying it.
const DEARER: usize = 8;
const MANY_PIXELS: usize = 32;
/// And turning a value round.
const TURN: usize = 8;
/// Of fewer pixels too little is left of a vector.
const LEAST_PIXELS: usize = 16;

/// How many of the weights are not zero.
pub fn count(weights: &[f32]) -> usize {
    weights.iter().filter(|&&w| w != 0.0).count()
}

/// Length of packed weights `[n][k]`: `[n]` biases; for each block of outputs and chunk of channels where its groups end, and
/// its outputs with the number of their groups; and of each group its channels and its weights.
pub fn packed_len(n: usize, k: usize, weights: &[f32]) -> usize {
    assert_eq!(weights.len(), volume(&[n, k]), "weights are [n][k]");
    let mut groups = 0;
    for part in 0..n.div_ceil(BLOCK) * chunks(k) {
        let mut order = [(0, 0); BLOCK];
        groups += ordered(n, k, weights, part, &mut order).iter().map(|(groups, _)| groups).sum::<usize>();
    }
    least_len(n, k).checked_add(volume(&[groups, 1 + GROUP])).expect("tensor size overflows usize")
}

/// The channels of a chunk of an output's weights.
fn row(k: usize, weights: &[f32], part: usize, output: usize) -> &[f32] {
    let from = part % chunks(k) * chunk(k);
    &weights[(part / chunks(k) * BLOCK + output) * k..][from..k.min(from + chunk(k))]
}

/// The outputs of a part, those with most groups first, with the number of their groups: of pairs the greater one.
fn ordered<'a>(
    n: usize,
    k: usize,
    weights: &[f32],
    part: usize,
    order: &'a mut [(usize, usize); BLOCK],
) -> &'a [(usize, usize)] {
    let order = &mut order[..BLOCK.min(n - part / chunks(k) * BLOCK)];
    for (output, own) in order.iter_mut().enumerate() {
        *own = (count(row(k, weights, part, output)).div_ceil(GROUP), output);
    }
    order.sort_unstable_by_key(|(groups, output)| (usize::MAX - groups, *output));
    for pair in order.chunks_exact_mut(2) {
        pair[1].0 = pair[0].0;
    }
    order
}

/// Of no input channels there is one chunk too: it adds the biases.
fn chunks(k: usize) -> usize {
    k.div_ceil(CHUNK).max(1)
}

/// Channels of a chunk: as many of each, but for the last one.
fn chunk(k: usize) -> usize {
    k.div_ceil(chunks(k))
}

/// Without a weight.
fn least_len(n: usize, k: usize) -> usize {
    let outputs = n.checked_add(n.div_ceil(BLOCK)).map(|each| volume(&[each, chunks(k)]));
    outputs.and_then(|outputs| outputs.checked_add(n)).expect("tensor size overflows usize")
}

/// Packs `weights` `[n][k]` and `bias` `[n]` (none: zeros) for [`run`]. The layout is the same for every instruction set; whole
/// numbers are kept as the bits of floats.
pub fn pack(n: usize, k: usize, weights: &[f32], bias: Option<&[f32]>, packed: &mut [f32]) {
    assert_eq!(packed.len(), packed_len(n, k, weights), "packed_len(n, k, weights)");
    assert!(bias.is_none_or(|b| b.len() == n), "bias is [n]");
    packed.fill(0.0);
    let groups = (packed.len() - least_len(n, k)) / (1 + GROUP);
    let (biases, packed) = packed.split_at_mut(n);
    if let Some(bias) = bias {
        biases.copy_from_slice(bias);
    }
    let (ends, packed) = packed.split_at_mut(n.div_ceil(BLOCK) * chunks(k));
    let (outputs, packed) = packed.split_at_mut(n * chunks(k));
    let (channels, values) = packed.split_at_mut(groups);
    let (mut at, mut place) = (0, 0);
    for (part, end) in ends.iter_mut().enumerate() {
        let mut order = [(0, 0); BLOCK];
        for &(groups, output) in ordered(n, k, weights, part, &mut order) {
            outputs[place] = f32::from_bits((groups << 8 | output) as u32);
            place += 1;
            let kept = row(k, weights, part, output).iter().enumerate().filter(|(_, weight)| **weight != 0.0);
            let mut bytes = [0; GROUP];
            let (mut i, from) = (0, at);
            for (channel, &weight) in kept {
                values[at * GROUP + i] = weight;
                // What fills the group up multiplies the same row.
                bytes[i..].fill(channel as u8);
                channels[at] = f32::from_bits(u32::from_le_bytes(bytes));
                i = (i + 1) % GROUP;
                at += usize::from(i == 0);
            }
            // A pair's second one has zeros, if need be.
            at = from + groups;
        }
        *end = f32::from_bits(u32::try_from(at).expect("at most 2³² groups"));
    }
}

/// Length of the scratch that [`run`] needs with a team of `threads`.
pub fn scratch_len(k: usize, threads: usize) -> usize {
    volume(&[threads, worker_len(k)])
}

fn worker_len(k: usize) -> usize {
    let rows = chunks(k).checked_mul(chunk(k)).and_then(|rows| rows.checked_add(BLOCK));
    volume(&[rows.expect("tensor size overflows usize"), TILE])
}

/// y\[m\]\[n\] = act(bias\[n\] + Σₖ x\[m\]\[k\]·w\[n\]\[k\] + residual\[m\]\[n\]) over the weights that are not zero, with `packed` from
/// [`pack`] and `scratch` of at least [`scratch_len`], its content without meaning.
pub fn run(
    isa: Isa,
    workers: &dyn Workers,
    [m, k, n]: [usize; 3],
    act: Act,
    x: &[f32],
    packed: &[f32],
    residual: Option<&[f32]>,
    scratch: &mut [f32],
    y: &mut [f32],
) {
    assert_eq!(x.len(), volume(&[m, k]), "x is [m][k]");
    assert_eq!(y.len(), volume(&[m, n]), "y is [m][n]");
    assert!(residual.is_none_or(|r| r.len() == y.len()), "residual is [m][n]");
    let threads = workers.threads();
    assert!(scratch.len() >= scratch_len(k, threads), "scratch_len(k, threads)");
    let weights = Weights::of(n, k, packed);
    let macs = m.saturating_mul(weights.values.len());
    // Rows in whole vectors; where they are too few for the team, columns too, each of which turns its own x.
    let rows = pieces(m.div_ceil(TILE), macs).min(MAX_PIECES);
    let columns = match rows < threads && macs >= SPLIT {
        true => threads.min(n / BLOCK).clamp(1, MAX_PIECES / rows),
        false => 1,
    };
    let (scratch, y) = (Shared::new(scratch), Shared::new(y));
    dispatch(workers, rows * columns, &|piece, worker| {
        let own = part(piece / columns, rows, m, VECTOR);
        let outputs = part(piece % columns, columns, n, BLOCK);
        // SAFETY: each worker id has its own part, and `dispatch` lets one thread at a time use an id.
        let scratch = unsafe { scratch.slice(worker * worker_len(k), worker_len(k)) };
        // SAFETY: pieces have different rows or columns, and `dispatch` runs a piece once.
        let y = unsafe { y.view(own.start * n + outputs.start, own.len(), outputs.len(), n) };
        if y.rows() == 0 || y.columns() == 0 {
            return;
        }
        let residual = residual.map(|r| &r[own.start * n + outputs.start..]);
        let job = Job { k, x: &x[own.start * k..own.end * k], weights: &weights, outputs, act, residual };
        arch::select!(isa, sparse(&job, scratch, y));
    });
}

/// The longest vector.
const VECTOR: usize = 16;
/// Fewer multiplications are not worth turning x twice.
const SPLIT: usize = 200_000;

/// Packed weights in their parts, whole numbers still as bits.
pub(crate) struct Weights<'a> {
    bias: &'a [f32],
    chunks: usize,
    /// Channels of one.
    chunk: usize,
    /// Of each block its chunks: where the groups end that are theirs.
    ends: &'a [f32],
    /// Of each of those its outputs.
    outputs: &'a [f32],
    /// Of each group its channels among those of the chunk, a byte each: less than `chunk`.
    channels: &'a [f32],
    /// Of each group its weights.
    values: &'a [f32],
}

/// What a block of outputs needs of a chunk of channels.
pub(crate) struct Part<'a> {
    pub bias: &'a [f32],
    /// Every output of the block, those with most groups first; see [`Part::output`].
    pub outputs: &'a [f32],
    /// As many as all of them have.
    pub channels: &'a [f32],
    /// Of each group its weights.
    pub values: &'a [f32],
}

impl Part<'_> {
    /// An output, less than [`BLOCK`], and how many groups it has.
    #[inline(always)]
    pub(crate) fn output(bits: f32) -> (usize, usize) {
        ((bits.to_bits() & 0xFF) as usize, (bits.to_bits() >> 8) as usize)
    }
}

impl<'a> Weights<'a> {
    /// Whatever `packed` holds: all numbers are in their ranges.
    fn of(n: usize, k: usize, packed: &'a [f32]) -> Self {
        let least = least_len(n, k);
        assert!(
            packed.len() >= least && (packed.len() - least).is_multiple_of(1 + GROUP),
            "packed_len(n, k, weights)"
        );
        let groups = (packed.len() - least) / (1 + GROUP);
        let (bias, rest) = packed.split_at(n);
        let (ends, rest) = rest.split_at(n.div_ceil(BLOCK) * chunks(k));
        let (outputs, rest) = rest.split_at(n * chunks(k));
        let (channels, values) = rest.split_at(groups);
        // The highest bit of a byte that is too large for a channel.
        const HIGH: u32 = 0x8080_8080;
        let below = u32::from_le_bytes([(CHUNK - chunk(k)) as u8; 4]);
        let over = |bits: u32| (((bits & !HIGH) + below) | bits) & HIGH;
        let wrong = channels.iter().fold(0, |wrong, channels| wrong | over(channels.to_bits()));
        assert!(wrong == 0, "from `pack`");
        let (chunks, chunk) = (chunks(k), chunk(k));
        let weights = Weights { bias, chunks, chunk, ends, outputs, channels, values };
        for block in 0..n.div_ceil(BLOCK) {
            for chunk in 0..weights.chunks {
                let part = weights.part(block, chunk);
                let total = part.outputs.iter().try_fold(0, |total, output| {
                    let (output, groups) = Part::output(*output);
                    (output < BLOCK).then_some(total + groups)
                });
                let even = |pair: &[f32]| Part::output(pair[0]).1 == Part::output(pair[1]).1;
                let pairs = part.outputs.chunks_exact(2).all(even);
                assert!(total == Some(part.channels.len()) && pairs, "from `pack`");
            }
        }
        weights
    }

    /// What a block of outputs needs of a chunk of channels.
    pub(crate) fn part(&self, block: usize, chunk: usize) -> Part<'a> {
        let own = block * BLOCK..self.bias.len().min((block + 1) * BLOCK);
        let at = block * self.chunks + chunk;
        let end = |count: usize| if count == 0 { 0 } else { self.ends[count - 1].to_bits() as usize };
        let (from, to) = (end(at), end(at + 1));
        let outputs = own.start * self.chunks + chunk * own.len();
        Part {
            outputs: &self.outputs[outputs..outputs + own.len()],
            bias: &self.bias[own],
            channels: &self.channels[from..to],
            values: &self.values[from * GROUP..to * GROUP],
        }
    }

    /// How many chunks there are, and how many channels each of them has.
    pub(crate) fn chunks(&self) -> [usize; 2] {
        [self.chunks, self.chunk]
    }
}

/// What one piece needs beside its rectangle of y.
pub(crate) struct Job<'a> {
    pub k: usize,
    /// As many rows of k as the rectangle has.
    pub x: &'a [f32],
    pub weights: &'a Weights<'a>,
    /// The rectangle's columns: whole blocks, but for the last one.
    pub outputs: Range<usize>,
    pub act: Act,
    /// From the rectangle's first value on, with the row stride of y.
    pub residual: Option<&'a [f32]>,
}

/// The reference.
fn sparse(job: &Job, _: &mut [f32], mut y: View) {
    let (stride, weights) = (y.stride(), job.weights);
    for row in 0..y.rows() {
        let x = &job.x[row * job.k..][..job.k];
        for (block, y) in y.row(row).chunks_mut(BLOCK).enumerate() {
            let first = job.outputs.start + block * BLOCK;
            let mut sums = [0.0; BLOCK];
            for chunk in 0..weights.chunks {
                let part = weights.part(first / BLOCK, chunk);
                if chunk == 0 {
                    sums[..y.len()].copy_from_slice(part.bias);
                }
                let (x, mut group) = (&x[chunk * weights.chunk..], 0);
                for &output in part.outputs {
                    let (output, groups) = Part::output(output);
                    for group in group..group + groups {
                        let channels = part.channels[group].to_bits().to_le_bytes();
                        for (channel, &value) in channels.into_iter().zip(&part.values[group * GROUP..]) {
                            sums[output] = fma(x[usize::from(channel)], value, sums[output]);
                        }
                    }
                    group += groups;
                }
            }
            for (column, (y, sum)) in y.iter_mut().zip(sums).enumerate() {
                let at = row * stride + block * BLOCK + column;
                *y = job.act.apply(job.residual.map_or(sum, |r| sum + r[at]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Serial, pointwise,
        testing::{Team, noise},
    };
    use std::{vec, vec::Vec};

    /// Noise of which so many of a hundred are zero.
    fn weights(n: usize, k: usize, zeros: usize, seed: u32) -> Vec<f32> {
        let (values, dice) = (noise(n * k, seed), noise(n * k, seed + 1));
        let gone = |dice: f32| (dice + 2.0) * 25.0 < zeros as f32;
        values.iter().zip(&dice).map(|(&v, &d)| if gone(d) { 0.0 } else { v }).collect()
    }

    fn packed(n: usize, k: usize, weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let mut packed = vec![f32::NAN; packed_len(n, k, weights)];
        pack(n, k, weights, bias, &mut packed);
        packed
    }

    #[test]
    fn by_hand() {
        let weights = [1.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, -4.0, 0.0];
        let packed = packed(3, 3, &weights, Some(&[10.0, 5.0, 0.0]));
        // Three biases, an end, three outputs, and a group of two of them.
        assert_eq!(packed.len(), 3 + 1 + 3 + 2 * (1 + 4));
        let (x, mut scratch) = ([1.0, 2.0, 3.0, -1.0, 0.5, 0.0], vec![0.0; scratch_len(3, 1)]);
        for isa in Isa::available() {
            let mut y = [0.0; 6];
            let residual = [1.0, 0.0, 0.0, 0.0, 0.0, 10.0];
            run(isa, &Serial, [2, 3, 3], Act::Relu, &x, &packed, Some(&residual), &mut scratch, &mut y);
            assert_eq!(y, [21.0, 5.0, 0.0, 9.0, 5.0, 8.0], "{isa:?}");
        }
    }

    #[test]
    fn zeros_that_are_left_out_change_nothing() {
        let rows = (1..=33).map(|m| (m, 20, 24)).chain((60..=80).map(|m| (m, 16 + m % 5, 17)));
        let shapes = rows.chain([
            (49, 160, 96),
            (196, 64, 40),
            (784, 24, 144),
            (50, 3, 5),
            (65, 33, 31),
            (300, 96, 63),
            (2, 0, 4),
            (0, 8, 8),
            (49, 48, 1),
            (130, 100, 100),
            (70, 96, 33),
            (49, 290, 40),
        ]);
        let acts = [Act::None, Act::Relu6, Act::HSwish, Act::Silu, Act::Relu];
        for (i, (m, k, n)) in shapes.enumerate() {
            let act = acts[i % acts.len()];
            let weights = weights(n, k, [80, 0, 95, 100, 50][i % 5], 7 + i as u32);
            let (x, bias, r) = (noise(m * k, 1), noise(n, 2), noise(m * n, 3));
            let residual = (i % 3 == 0).then_some(&r[..]);
            let mut dense = vec![0.0; pointwise::packed_len(n, k)];
            pointwise::pack(n, k, &weights, Some(&bias), &mut dense);
            let mut expected = vec![0.0; m * n];
            let isa = Isa::scalar();
            pointwise::run(isa, &Serial, m, k, n, act, &x, &dense, residual, &mut expected);
            let packed = packed(n, k, &weights, Some(&bias));
            for isa in Isa::available() {
                for threads in [1, 3, 4] {
                    let mut scratch = vec![f32::NAN; scratch_len(k, threads)];
                    let (team, serial) = (Team(threads), Serial);
                    let workers: &dyn Workers = if threads == 1 { &serial } else { &team };
                    let mut y = vec![f32::NAN; m * n];
                    run(isa, workers, [m, k, n], act, &x, &packed, residual, &mut scratch, &mut y);
                    assert!(y == expected, "{isa:?} {threads} {m}x{k}x{n} {act:?}");
                }
            }
        }
    }

    #[test]
    fn many_zeros_pay_and_few_do_not() {
        let shape = [196, 96, 576];
        assert!(pays(shape, 96 * 576 / 5) && !pays(shape, 96 * 576 * 7 / 10));
        assert!(!pays([196, 16, 32], 16 * 32 / 5) && !pays([1, 1280, 1000], 1280 * 100));
        let few = [16, 192, 1152];
        assert!(pays(few, 192 * 1152 / 5) && !pays(few, 192 * 1152 * 3 / 10));
        assert!(!pays([15, 192, 1152], 192 * 1152 / 5));
    }

    /// What was packed and then changed at some places.
    fn changed(places: &[(usize, u32)]) {
        let mut packed = packed(2, 8, &[1.0; 16], None);
        // Two biases, an end, two outputs, four groups' channels.
        for &(place, bits) in places {
            packed[place] = f32::from_bits(bits);
        }
        let (x, mut scratch, mut y) = ([0.0; 8], vec![0.0; scratch_len(8, 1)], [0.0; 2]);
        run(Isa::detect(), &Serial, [1, 8, 2], Act::None, &x, &packed, None, &mut scratch, &mut y);
    }

    #[test]
    #[should_panic]
    fn ends_that_do_not_exist_are_refused() {
        changed(&[(2, 5)]);
    }

    #[test]
    #[should_panic(expected = "from `pack`")]
    fn other_numbers_of_groups_are_refused() {
        changed(&[(3, 3 << 8)]);
    }

    #[test]
    #[should_panic(expected = "from `pack`")]
    fn uneven_pairs_are_refused() {
        changed(&[(3, 1 << 8), (4, 3 << 8 | 1)]);
    }

    #[test]
    #[should_panic(expected = "from `pack`")]
    fn outputs_that_do_not_exist_are_refused() {
        changed(&[(4, 2 << 8 | 32)]);
    }

    #[test]
    #[should_panic(expected = "from `pack`")]
    fn channels_that_do_not_exist_are_refused() {
        changed(&[(5, 8 << 16)]);
    }

    #[test]
    #[should_panic(expected = "from `pack`")]
    fn channels_far_beyond_are_refused() {
        changed(&[(6, 0xE0)]);
    }

    #[test]
    fn what_harms_nobody_runs() {
        changed(&[(4, 2 << 8 | 31)]);
    }
}
