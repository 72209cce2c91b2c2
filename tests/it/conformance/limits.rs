//! What all buckets promise: the docs of trait `Limits`, case by case.

use shared::clock::UnixMs;
use shared::limits::{Ask, Charge, Limits, Reservation, Verdict};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Runs every case on one implementation, one after the other.
pub(super) async fn all(limits: &dyn Limits) {
    a_quota_and_no_more(limits).await;
    all_or_nothing(limits).await;
    it_comes_back_bit_by_bit(limits).await;
    settled_later(limits).await;
    many_at_once(limits).await;
}

fn bucket() -> Arc<str> {
    format!("requests:{}", Uuid::now_v7()).into()
}

fn charge(bucket: &Arc<str>, quota: u32, cost: i64) -> Charge {
    Charge { bucket: bucket.clone(), quota, cost }
}

async fn take(limits: &dyn Limits, charges: &[Charge]) -> Verdict {
    let ask = Ask { charges: charges.to_vec(), forced: false };
    limits.take(&[ask]).await.expect("the buckets answer").remove(0)
}

async fn a_quota_and_no_more(limits: &dyn Limits) {
    let bucket = bucket();
    for taken in 1..=3 {
        let verdict = take(limits, &[charge(&bucket, 3, 1)]).await;
        assert!(verdict.charged);
        let left = verdict.left[0];
        assert_eq!((left.remaining, left.wait), (3 - taken, Duration::ZERO));
        assert!(left.reset <= Duration::from_secs(20) * taken);
    }
    let refused = take(limits, &[charge(&bucket, 3, 1)]).await;
    let left = refused.left[0];
    assert!(!refused.charged && left.remaining == 0, "{refused:?}");
    assert!(left.wait > Duration::from_secs(15) && left.wait <= Duration::from_secs(20), "{refused:?}");
    assert!(take(limits, &[]).await.charged, "nothing is always possible");
}

async fn all_or_nothing(limits: &dyn Limits) {
    let (wide, narrow) = (bucket(), bucket());
    let both = [charge(&wide, 10, 2), charge(&narrow, 10, 8)];
    assert!(take(limits, &both).await.charged);
    let refused = take(limits, &both).await;
    assert!(!refused.charged && refused.left[0].wait.is_zero() && !refused.left[1].wait.is_zero());
    assert_eq!(
        take(limits, &[charge(&wide, 10, 0)]).await.left[0].remaining,
        8,
        "what fitted was not charged"
    );
}

async fn it_comes_back_bit_by_bit(limits: &dyn Limits) {
    let bucket = bucket();
    assert!(take(limits, &[charge(&bucket, 600, 600)]).await.charged);
    let begun = Instant::now();
    let mut taken = 0;
    while begun.elapsed() < Duration::from_millis(500) {
        taken += u32::from(take(limits, &[charge(&bucket, 600, 1)]).await.charged);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let most = begun.elapsed().as_millis() / 100 + 1;
    assert!(taken >= 1 && u128::from(taken) <= most, "{taken} of {most}");
}

async fn settled_later(limits: &dyn Limits) {
    let bucket = bucket();
    let now = UnixMs::now();
    let reserved = Reservation { tokens: 800, at: now.0, buckets: vec![(bucket.clone(), 1_000)] };
    let remaining = async || take(limits, &[charge(&bucket, 1_000, 0)]).await.left[0].remaining;
    assert!(take(limits, &[charge(&bucket, 1_000, 800)]).await.charged);
    limits.take(&[reserved.settled(100, now)]).await.expect("the buckets answer");
    assert!((900..=903).contains(&remaining().await), "{}", remaining().await);
    // What the time has given back already is not given back again.
    let old = Reservation { at: now.0 - 60_000, ..reserved.clone() };
    assert_eq!(old.settled(100, now).charges[0].cost, 0);
    assert_eq!(old.settled(900, now).charges[0].cost, 100);
    // More than there is: what was spent was spent.
    let forced = limits.take(&[reserved.charged(1_500)]).await.expect("the buckets answer").remove(0);
    assert!(forced.charged);
    let refused = take(limits, &[charge(&bucket, 1_000, 1)]).await;
    assert!(!refused.charged && refused.left[0].wait > Duration::from_secs(30), "{refused:?}");
}

async fn many_at_once(limits: &dyn Limits) {
    let (one, other) = (bucket(), bucket());
    let asks: Vec<Ask> = (0..3_000)
        .map(|n| Ask { charges: vec![charge(if n % 2 == 0 { &one } else { &other }, 100, 1)], forced: false })
        .collect();
    let verdicts = limits.take(&asks).await.expect("the buckets answer");
    assert_eq!(verdicts.len(), asks.len());
    for first in 0..2 {
        let charged = verdicts.iter().skip(first).step_by(2).filter(|verdict| verdict.charged).count();
        assert!((100..=103).contains(&charged), "{charged}");
    }
}
