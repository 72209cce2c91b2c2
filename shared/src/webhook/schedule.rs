//! When a delivery that failed is tried again.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Seconds between one attempt and the next: twelve attempts in about three days.
const WAITS_S: [u64; 11] =
    [5, 30, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR, 24 * HOUR];
/// Jitter: receivers that were away are not met by all at once.
const JITTER: f64 = 0.2;

/// The wait after so many attempts, with `jitter` between 0 and 1; `None`: it was the last one. What the receiver `asked` for counts if
/// it is longer.
#[must_use]
pub fn wait(attempts: u32, asked: Option<Duration>, jitter: f64) -> Option<Duration> {
    let seconds = *WAITS_S.get(usize::try_from(attempts).ok()?.checked_sub(1)?)?;
    let wait = Duration::from_secs(seconds).mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0));
    Some(wait.max(asked.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_for_three_days() {
        let all: Vec<u64> = (1..).map_while(|attempts| Some(wait(attempts, None, 0.5)?.as_secs())).collect();
        assert_eq!(all, [5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 86_400]);
        assert_eq!((wait(0, None, 0.5), wait(12, None, 0.5)), (None, None));
    }

    #[test]
    fn jitter_is_a_fifth_and_the_receiver_may_ask_for_more() {
        let seconds = |attempts, asked, jitter| wait(attempts, asked, jitter).expect("a wait").as_secs_f64();
        assert_eq!((seconds(1, None, 0.0), seconds(1, None, 1.0)), (4.0, 6.0));
        assert_eq!(seconds(1, Some(Duration::from_secs(60)), 0.5), 60.0);
        assert_eq!(seconds(6, Some(Duration::from_secs(60)), 0.5), HOUR as f64);
    }
}
