//! Places buffers in one arena so that those alive together never overlap.

use alloc::{vec, vec::Vec};

/// Buffers start on cache lines: multiples of this many values.
const ALIGN: usize = 16;

/// Start of each buffer, and the arena's length, in values.
///
/// `lives` holds the first and last step that touches each buffer, inclusive. Greedy by size, into the lowest gap
/// (Pisarchyk and Lee, arXiv 2001.03288).
pub fn place(lengths: &[usize], lives: &[[usize; 2]]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| (core::cmp::Reverse(lengths[index]), index));
    let mut starts = vec![0; lengths.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(lengths.len());
    let mut arena_len = 0;
    for &index in &order {
        let [first, last] = lives[index];
        let mut neighbours: Vec<usize> = placed
            .iter()
            .copied()
            .filter(|&other| lives[other][0] <= last && first <= lives[other][1])
            .collect();
        neighbours.sort_by_key(|&other| starts[other]);
        let mut start = 0;
        for other in neighbours {
            if start + lengths[index] <= starts[other] {
                break;
            }
            start = start.max((starts[other] + lengths[other]).next_multiple_of(ALIGN));
        }
        starts[index] = start;
        arena_len = arena_len.max(start + lengths[index]);
        placed.push(index);
    }
    (starts, arena_len)
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn buffers_alive_together_never_overlap() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for _ in 0..200 {
            let count = 1 + random(30);
            let lengths: alloc::vec::Vec<usize> = (0..count).map(|_| 1 + random(1000)).collect();
            let lives: alloc::vec::Vec<[usize; 2]> = (0..count)
                .map(|_| {
                    let first = random(20);
                    [first, first + random(5)]
                })
                .collect();
            let (starts, len) = place(&lengths, &lives);
            for a in 0..count {
                assert!(starts[a] + lengths[a] <= len);
                for b in 0..a {
                    let together = lives[a][0] <= lives[b][1] && lives[b][0] <= lives[a][1];
                    let apart = starts[a] + lengths[a] <= starts[b] || starts[b] + lengths[b] <= starts[a];
                    assert!(!together || apart);
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_its_two_largest_neighbours() {
        let (_, len) = place(&[160, 320, 160, 32], &[[0, 0], [0, 1], [1, 2], [2, 3]]);
        assert_eq!(len, 480);
    }
}
