//! The times of one request.

use std::time::Duration;

use crate::behaviour::Behaviour;
use crate::text::spread;

/// The times of one request, drawn from its prompt.
#[derive(Debug)]
pub(crate) struct Pace {
    times: Behaviour,
    rng: fastrand::Rng,
}

impl Pace {
    pub(crate) fn new(times: Behaviour, rng: fastrand::Rng) -> Self {
        Self { times, rng }
    }

    /// Everything at once: for failures.
    pub(crate) fn none() -> Self {
        Self::new(Behaviour::instant(), fastrand::Rng::with_seed(0))
    }

    /// From the request to the first token.
    pub(crate) fn first(&mut self) -> Duration {
        self.draw(self.times.ttft_ms)
    }

    /// From one token to the next.
    pub(crate) fn next(&mut self) -> Duration {
        self.draw(self.times.itl_ms)
    }

    /// All of a request's time at once.
    pub(crate) fn whole(&mut self, positions: u32) -> Duration {
        let first = self.first();
        if self.is_instant() { first } else { (1..positions).fold(first, |sum, _| sum + self.next()) }
    }

    pub(crate) fn is_instant(&self) -> bool {
        self.times.itl_ms == 0
    }

    fn draw(&mut self, ms: u64) -> Duration {
        // A day bounds what any request may ask for.
        let ms = ms.min(86_400_000) as f64;
        Duration::from_secs_f64(spread(ms, self.times.jitter, &mut self.rng) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_within_the_jitter() {
        let times = Behaviour { ttft_ms: 100, itl_ms: 10, jitter: 0.5, ..Behaviour::default() };
        let mut pace = Pace::new(times, fastrand::Rng::with_seed(7));
        assert!((50..=150).contains(&pace.first().as_millis()));
        assert!((0..100).all(|_| (5..=15).contains(&pace.next().as_millis())));
        assert!((1..=2).contains(&pace.whole(101).as_secs()));
    }

    #[test]
    fn zero_is_zero() {
        let mut pace =
            Pace::new(Behaviour { jitter: 1.0, ..Behaviour::instant() }, fastrand::Rng::with_seed(7));
        assert_eq!(pace.whole(1_000), Duration::ZERO);
    }
}
