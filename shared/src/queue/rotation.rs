//! Who is served next among lanes: turns by weight, spread smoothly. Pure.
//!
//! A fixed cycle of turns gives every lane as many turns as its weight, as far apart as possible: 8:4:1 begins
//! `0 1 0 0 1 …`. A lane without work passes its turn on. What is left is the same cycle without that lane, so the others keep
//! their ratio among themselves and a lane alone gets everything. `pop.lua` takes the same steps inside Redis.

/// Most turns in a cycle. Heavier weights are scaled down; a lane keeps at least one turn.
const TURNS_MAX: u64 = 512;

/// The cycle: indexes of lanes in the order of their turns.
pub(super) fn cycle(weights: impl Iterator<Item = u32>) -> Vec<u8> {
    let weights: Vec<u64> = weights.map(|weight| u64::from(weight.max(1))).collect();
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let sum = (weights.iter().sum::<u64>() / divisor).max(TURNS_MAX);
    let shares: Vec<i64> =
        weights.iter().map(|weight| (weight / divisor * TURNS_MAX / sum).max(1).cast_signed()).collect();
    let total: i64 = shares.iter().sum();
    let mut credit = vec![0; shares.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        credit.iter_mut().zip(&shares).for_each(|(credit, share)| *credit += share);
        // The first of equals wins: lanes are listed heaviest first.
        let Some(next) = (0..credit.len()).rev().max_by_key(|&lane| credit[lane]) else { break };
        credit[next] -= total;
        turns.extend(u8::try_from(next));
    }
    turns
}

/// How many of `max` ids each lane gives, if it has `have` of them and the turn numbered `at` is next. Moves `at` on.
pub(super) fn split(turns: &[u8], at: &mut usize, have: &[usize], max: usize) -> Vec<usize> {
    let mut give = vec![0; have.len()];
    let mut left = max.min(have.iter().sum());
    while left > 0 {
        let lane = usize::from(turns[*at % turns.len()]);
        *at = (*at + 1) % turns.len();
        if give[lane] < have[lane] {
            give[lane] += 1;
            left -= 1;
        }
    }
    give
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        let turns = cycle([8, 4, 1].into_iter());
        let count = |lane| turns.iter().filter(|&&turn| turn == lane).count();
        assert_eq!((count(0), count(1), count(2)), (8, 4, 1));
        assert!(turns.windows(4).all(|four| four.contains(&1) || four.contains(&2)), "{turns:?}");
        assert_eq!(cycle([6, 3].into_iter()), [0, 1, 0]);
        assert_eq!(cycle([1_000_000, 0].into_iter()).len(), 512);
        assert!(cycle([].into_iter()).is_empty());
    }

    #[test]
    fn one_at_a_time_keeps_the_ratio_of_those_with_work() {
        let turns = cycle([8, 4, 1].into_iter());
        for (have, expected) in [
            ([9, 9, 9], [800, 400, 100]),
            ([9, 0, 9], [1156, 0, 144]),
            ([0, 9, 9], [0, 1040, 260]),
            ([0, 0, 9], [0, 0, 1300]),
        ] {
            let (mut at, mut served) = (0, [0; 3]);
            for _ in 0..1300 {
                let give = split(&turns, &mut at, &have, 1);
                served.iter_mut().zip(give).for_each(|(served, give)| *served += give);
            }
            assert!(served.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 8), "{served:?}");
        }
    }

    #[test]
    fn takes_what_is_there_and_no_more() {
        let turns = cycle([8, 4, 1].into_iter());
        assert_eq!(split(&turns, &mut 5, &[2, 0, 50], 40), [2, 0, 38]);
        assert_eq!(split(&turns, &mut 0, &[2, 1, 1], 40), [2, 1, 1]);
        assert_eq!(split(&turns, &mut 0, &[0, 0, 0], 40), [0, 0, 0]);
        assert_eq!(split(&[], &mut 0, &[], 1), [0; 0]);
    }
}
