//! What a purse promises, and what it does piece by piece.

use super::{super::MemoryLimits, *};

/// Two processes with purses before the same buckets.
struct Pair(MemoryLimits, [Purses; 2]);

impl Pair {
    fn new() -> Self {
        Self(MemoryLimits::default(), Default::default())
    }

    /// One charge in one of the processes at this moment: whether it was made, and whether the buckets had to be asked.
    fn take(&self, process: usize, quota: u32, cost: i64, now: Instant) -> (Verdict, bool) {
        let purses = &self.1[process];
        let charge = Charge { bucket: "requests:key".into(), quota, cost };
        let ask = Ask { charges: vec![charge], forced: false };
        if let Some(verdict) = purses.judge(&ask, now) {
            return (verdict, false);
        }
        let asks = [ask];
        let more = purses.beside(&asks, now);
        let verdicts = self.0.judge_at(&asks, now);
        purses.note(&asks, &verdicts, now);
        purses.fill(&more, &self.0.judge_at(&more, now), now);
        (verdicts[0].clone(), true)
    }
}

/// Whatever comes when, in whichever process: no more than the quota, what the time gives, and one.
#[test]
fn no_more_than_promised() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (pair, start) = (Pair::new(), Instant::now());
        let quota = random.u32(1..20_000);
        let most_wait = random.u64(1..3_000);
        let (mut now, mut allowed) = (start, 0);
        for _ in 0..4_000 {
            now += Duration::from_micros(random.u64(..most_wait));
            let cost = random.i64(1..4);
            let (verdict, _) = pair.take(random.usize(..2), quota, cost, now);
            allowed += if verdict.charged { cost } else { 0 };
            let time = (now - start).as_secs_f64();
            let most = f64::from(quota) * (1.0 + time / WINDOW.as_secs_f64()) + 1.0;
            assert!(allowed as f64 <= most, "seed {seed}: {allowed} of {most}");
        }
    }
}

#[test]
fn who_asks_often_is_charged_in_advance() {
    let (pair, start) = (Pair::new(), Instant::now());
    let mut asked = 0;
    for n in 0..10_000 {
        let (verdict, there) = pair.take(0, 1_000_000, 1, start + Duration::from_micros(100 * n));
        assert!(verdict.charged);
        asked += u32::from(there);
    }
    assert!(asked < 300, "{asked} of 10,000 requests asked");
    // What was not used is given back: the other process finds no more gone than was used.
    let later = start + Duration::from_millis(1_100);
    pair.0.judge_at(&pair.1[0].unused(later), later);
    let remaining = pair.take(1, 1_000_000, 1, later).0.left[0].remaining;
    assert!(remaining >= 989_999, "{remaining}");
}

#[test]
fn who_asks_rarely_or_for_the_last_ones_is_charged_one_by_one() {
    let (pair, start) = (Pair::new(), Instant::now());
    assert!((0..100).all(|n| pair.take(0, 1_000, 1, start + Duration::from_millis(20 * n)).1));
    let (pair, mut taken) = (Pair::new(), 0);
    for n in 0..200 {
        let now = start + Duration::from_micros(n);
        taken += u32::from(pair.take((n % 2) as usize, 100, 1, now).0.charged);
    }
    assert_eq!(taken, 100, "none of the quota is kept in a purse");
}

#[test]
fn a_refusal_is_repeated_while_it_holds() {
    let (pair, start) = (Pair::new(), Instant::now());
    assert!((0..600).all(|_| pair.take(0, 600, 1, start).0.charged));
    let (first, asked) = pair.take(0, 600, 1, start);
    assert!(!first.charged && asked && first.left[0].wait == Duration::from_millis(100), "{first:?}");
    let (again, asked) = pair.take(0, 600, 1, start + Duration::from_millis(30));
    assert!(!again.charged && !asked && again.left[0].wait == Duration::from_millis(70), "{again:?}");
    assert!(pair.take(0, 600, 1, start + Duration::from_millis(60)).1, "50 ms is the longest");
    assert!(pair.take(0, 600, 1, start + Duration::from_millis(111)).0.charged);
}

fn left(remaining: u32, wait_ms: u64) -> Left {
    Left { remaining, reset: WINDOW, wait: Duration::from_millis(wait_ms) }
}

fn charge(bucket: &str, quota: u32, cost: i64) -> Charge {
    Charge { bucket: bucket.into(), quota, cost }
}

#[test]
fn a_purse_is_good_for_one_life() {
    let (start, short) = (Instant::now(), LIFE - Duration::from_micros(1));
    let mut purse = Purse { quota: 6_030, credit: (100, start), ..Purse::new(left(5_995, 100), start) };
    let speaks = |quota, cost, after| purse.speaks_of(&charge("a", quota, cost), start + after);
    assert!(speaks(6_030, 1, short) && !speaks(6_030, 1, LIFE));
    assert!(!speaks(6_031, 1, short) && !speaks(6_030, 0, short), "another quota, and a question");
    assert!(purse.pays(100, start + short) && !purse.pays(101, start) && !purse.pays(100, start + LIFE));
    let told = Left { remaining: 6_030, reset: WINDOW - LIFE, wait: LIFE };
    assert_eq!(purse.left(Some(LIFE), start + LIFE), told);
    purse.refused = Some((3, start + LIFE));
    let refuses = |cost| purse.refuses(cost, start + LIFE / 2);
    assert_eq!([refuses(2), refuses(3)], [None, Some(Duration::from_millis(75))]);
    assert_eq!(purse.refuses(3, start + LIFE), None);
    let bucket = Arc::from("a");
    assert_eq!(purse.give_back(&bucket, start + short), None);
    let back = Ask { charges: vec![charge("a", 6_030, -94)], forced: true };
    assert_eq!(purse.give_back(&bucket, start + LIFE), Some(back), "the time has given six");
    assert_eq!((purse.credit.0, purse.give_back(&bucket, start + 3 * LIFE)), (0, None));
    purse.credit = (6, start);
    assert_eq!(purse.give_back(&bucket, start + LIFE), None, "it is all there again");
}

#[test]
fn what_was_used_long_ago_counts_less_and_less() {
    let start = Instant::now();
    let after = |lives: u32| {
        let mut purse = Purse { used: (10, 6, start), ..Purse::new(left(1, 0), start) };
        purse.note_use(3, start + lives * LIFE);
        (purse.used.0, purse.used.1, (purse.used.2 - start).div_duration_f64(LIFE))
    };
    assert_eq!([after(4), after(6)], [(13, 7, 0.0), (8, 4, 3.0)]);
    assert_eq!([after(8), after(9)], [(8, 4, 4.0), (3, 1, 9.0)]);
}

#[test]
fn what_is_charged_in_advance_is_what_the_next_life_will_use() {
    let start = Instant::now();
    let wanted = |used, uses, lives: u32, credit, remaining| {
        let credit = (credit, start);
        let mut purse = Purse { used: (used, uses, start), credit, ..Purse::new(left(remaining, 0), start) };
        purse.in_advance(&"a".into(), start + lives * LIFE).map(|ask| ask.charges[0].cost)
    };
    assert_eq!([wanted(80, 8, 0, 0, 9_999), wanted(80, 7, 0, 0, 9_999)], [Some(100), None]);
    assert_eq!([wanted(160, 16, 2, 0, 9_999), wanted(160, 15, 2, 0, 9_999)], [Some(100), None]);
    assert_eq!([wanted(80, 8, 1, 24, 9_999), wanted(80, 8, 1, 25, 9_999)], [Some(76), None]);
    assert_eq!(wanted(80, 8, 1, 0, 160), Some(10), "a sixteenth of what is left");
}

#[test]
fn all_purses_pay_or_none_does() {
    let (purses, now) = (Purses::default(), Instant::now());
    for (bucket, credit) in [("a", 1), ("b", 0)] {
        let purse = Purse { quota: 10, credit: (credit, now), ..Purse::new(left(5, 0), now) };
        purses.all().purses.insert(bucket.into(), purse);
    }
    let ask = |buckets: &[&str], forced| Ask {
        charges: buckets.iter().map(|bucket| charge(bucket, 10, 1)).collect(),
        forced,
    };
    let verdict = |charged| Verdict { charged, left: vec![left(7, 0)] };
    let both = ask(&["a", "b"], false);
    assert_eq!(purses.judge(&both, now), None);
    purses.fill(&[ask(&["b"], true), ask(&["b"], false)], &[verdict(true), verdict(false)], now);
    assert_eq!(purses.judge(&both, now), None, "what was given back or refused is not there");
    purses.fill(&[ask(&["b"], false), ask(&["b"], false)], &[verdict(true), verdict(true)], now);
    let paid = Verdict { charged: true, left: vec![left(5, 0), left(8, 0)] };
    assert_eq!(purses.judge(&both, now), Some(paid));
    assert_eq!(purses.judge(&ask(&["b"], true), now), None, "the bucket itself is charged");
}

#[test]
fn forgotten_purses_go_once_there_are_many() {
    let (start, mut all) = (Instant::now(), All::default());
    for n in 0..SWEEP_AT {
        let (credit, age) = [(1, LIFE), (0, LIFE / 2), (0, LIFE), (0, LIFE)][n % 4];
        let purse = Purse { credit: (credit, start), ..Purse::new(left(1, 0), start + LIFE - age) };
        all.purses.insert(n.to_string().into(), purse);
    }
    all.sweep(start + LIFE);
    assert_eq!(all.purses.len(), SWEEP_AT, "not many");
    all.purses.insert("last".into(), Purse::new(left(1, 0), start));
    all.sweep(start + LIFE);
    assert_eq!((all.purses.len(), all.sweep_at), (SWEEP_AT / 2, SWEEP_AT));
}

#[test]
fn what_was_not_used_in_time_is_given_back_once() {
    let (purses, now) = (Purses::default(), Instant::now());
    for (bucket, credit) in [("a", 100), ("b", 0)] {
        let purse = Purse { quota: 6_000, credit: (credit, now), ..Purse::new(left(5, 0), now) };
        purses.all().purses.insert(bucket.into(), purse);
    }
    assert_eq!(purses.unused(now + LIFE / 2), []);
    assert_eq!(purses.unused(now + LIFE), [Ask { charges: vec![charge("a", 6_000, -95)], forced: true }]);
    assert_eq!(purses.unused(now + LIFE), []);
}
