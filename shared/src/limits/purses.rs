//! What this process has been charged in advance, so that not every request has to ask Redis.
//!
//! A bucket that is asked often and far from its end is charged for the next [`LIFE`] at once; the requests of that time take theirs
//! from the purse. Nobody gets what was not charged before, and near a bucket's end every charge is made one by one: so the promise of
//! the buckets holds, except that a charge may be some 50 ms older than its request. What was not used is given back. A refusal is
//! repeated for as long as it holds, and no longer than [`LIFE`].

use super::{Ask, Charge, Left, Verdict, WINDOW};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Time that is charged for in advance.
const LIFE: Duration = Duration::from_millis(50);
/// Requests in that time that make it worth while.
const USES_MIN: u32 = 8;
/// The part of what is left in a bucket that one purse may hold.
const PART: i64 = 16;
/// Purses that are looked through for forgotten ones when so many new ones have come.
const SWEEP_AT: usize = 4_096;

/// The purses of one process, by bucket.
#[derive(Default)]
pub(super) struct Purses(Mutex<All>);

#[derive(Default)]
struct All {
    purses: HashMap<Arc<str>, Purse>,
    /// Size at which forgotten ones are thrown away.
    sweep_at: usize,
}

struct Purse {
    quota: u32,
    /// Charged and not used yet, and when it was charged.
    credit: (i64, Instant),
    /// What was last heard of the bucket, and when.
    left: (Left, Instant),
    /// A cost that did not fit, and until when.
    refused: Option<(i64, Instant)>,
    /// What was used, by how many requests, since when.
    used: (i64, u32, Instant),
}

impl Purses {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A verdict, if the purses are enough for one.
    pub(super) fn judge(&self, ask: &Ask, now: Instant) -> Option<Verdict> {
        if ask.forced {
            return None;
        }
        let mut all = self.all();
        let (mut pays, mut refuses) = (true, false);
        for charge in &ask.charges {
            let purse = all.purses.get(&charge.bucket).filter(|purse| purse.speaks_of(charge, now))?;
            pays &= purse.pays(charge.cost, now);
            refuses |= purse.refuses(charge.cost, now).is_some();
        }
        if refuses {
            let left = ask.charges.iter().map(|charge| {
                let purse = &all.purses[&charge.bucket];
                purse.left(purse.refuses(charge.cost, now), now)
            });
            return Some(Verdict { charged: false, left: left.collect() });
        }
        if !pays {
            return None;
        }
        let left = ask.charges.iter().map(|charge| {
            let purse = all.purses.get_mut(&charge.bucket).expect("it was there");
            purse.credit.0 -= charge.cost;
            purse.note_use(charge.cost, now);
            purse.left(None, now)
        });
        Some(Verdict { charged: true, left: left.collect() })
    }

    /// What is to be asked beside these asks: what was not used is given back, what will be is charged for.
    pub(super) fn beside(&self, asks: &[Ask], now: Instant) -> Vec<Ask> {
        let buckets: BTreeSet<&Arc<str>> =
            asks.iter().flat_map(|ask| &ask.charges).map(|charge| &charge.bucket).collect();
        let mut all = self.all();
        let mut more = Vec::new();
        for bucket in buckets {
            if let Some(purse) = all.purses.get_mut(bucket) {
                more.extend(purse.give_back(bucket, now));
                more.extend(purse.in_advance(bucket, now));
            }
        }
        more
    }

    /// What was not used in time and is to be given back.
    pub(super) fn unused(&self, now: Instant) -> Vec<Ask> {
        let mut all = self.all();
        all.purses.iter_mut().filter_map(|(bucket, purse)| purse.give_back(bucket, now)).collect()
    }

    /// Takes in what became of asks.
    pub(super) fn note(&self, asks: &[Ask], verdicts: &[Verdict], now: Instant) {
        let mut all = self.all();
        for (ask, verdict) in asks.iter().zip(verdicts) {
            for (charge, left) in ask.charges.iter().zip(&verdict.left) {
                if ask.forced {
                    if let Some(purse) = all.purses.get_mut(&charge.bucket) {
                        (purse.left, purse.refused) = ((*left, now), None);
                    }
                    continue;
                }
                let purse = all.purses.entry(charge.bucket.clone()).or_insert_with(|| Purse::new(*left, now));
                purse.quota = charge.quota;
                purse.left = (*left, now);
                if verdict.charged {
                    purse.refused = None;
                    purse.note_use(charge.cost, now);
                } else if !left.wait.is_zero() {
                    purse.refused = Some((charge.cost, now + left.wait.min(LIFE)));
                }
            }
        }
        all.sweep(now);
    }

    /// Takes in what became of [`Purses::beside`].
    pub(super) fn fill(&self, more: &[Ask], verdicts: &[Verdict], now: Instant) {
        let mut all = self.all();
        let charged = more.iter().zip(verdicts).filter(|(ask, verdict)| !ask.forced && verdict.charged);
        for (charge, left) in charged.flat_map(|(ask, verdict)| ask.charges.iter().zip(&verdict.left)) {
            if let Some(purse) = all.purses.get_mut(&charge.bucket) {
                purse.credit = (purse.credit.0 + charge.cost, now);
                purse.left = (*left, now);
            }
        }
    }
}

impl All {
    /// Throws forgotten purses away, if there are many.
    fn sweep(&mut self, now: Instant) {
        if self.purses.len() > self.sweep_at.max(SWEEP_AT) {
            self.purses.retain(|_, purse| purse.credit.0 > 0 || now - purse.left.1 < LIFE);
            self.sweep_at = 2 * self.purses.len();
        }
    }
}

impl Purse {
    fn new(left: Left, now: Instant) -> Self {
        Self { quota: 1, credit: (0, now), left: (left, now), refused: None, used: (0, 0, now) }
    }

    /// Whether it is of this quota, and what was heard of its bucket is young enough. What costs nothing is a question.
    fn speaks_of(&self, charge: &Charge, now: Instant) -> bool {
        self.quota == charge.quota && charge.cost > 0 && now - self.left.1 < LIFE
    }

    fn pays(&self, cost: i64, now: Instant) -> bool {
        let (credit, at) = self.credit;
        credit >= cost && now - at < LIFE
    }

    /// How long such a cost will not fit.
    fn refuses(&self, cost: i64, now: Instant) -> Option<Duration> {
        let (refused, until) = self.refused?;
        let wait = until.saturating_duration_since(now);
        (cost >= refused && !wait.is_zero())
            .then(|| self.left.0.wait.saturating_sub(now - self.left.1).max(wait))
    }

    /// What is left in the bucket, with what is in the purse.
    fn left(&self, wait: Option<Duration>, now: Instant) -> Left {
        let (heard, at) = self.left;
        Left {
            remaining: heard
                .remaining
                .saturating_add(u32::try_from(self.credit.0).unwrap_or(0))
                .min(self.quota),
            reset: heard.reset.saturating_sub(now - at),
            wait: wait.unwrap_or_default(),
        }
    }

    fn note_use(&mut self, cost: i64, now: Instant) {
        let (used, uses, since) = self.used;
        let age = now - since;
        self.used = if age > 8 * LIFE {
            (cost, 1, now)
        } else if age > 4 * LIFE {
            (used / 2 + cost, uses / 2 + 1, since + age / 2)
        } else {
            (used + cost, uses + 1, since)
        };
    }

    /// What was charged too long ago to be used, less what the time has given back already.
    fn give_back(&mut self, bucket: &Arc<str>, now: Instant) -> Option<Ask> {
        let (credit, at) = self.credit;
        let age = now - at;
        if credit <= 0 || age < LIFE {
            return None;
        }
        self.credit = (0, now);
        let by_time = f64::from(self.quota) * age.as_secs_f64() / WINDOW.as_secs_f64();
        let cost = by_time.ceil() as i64 - credit;
        let charge = Charge { bucket: bucket.clone(), quota: self.quota, cost };
        (cost < 0).then(|| Ask { charges: vec![charge], forced: true })
    }

    /// What will be used in the next [`LIFE`], if it goes on like this and there is plenty.
    fn in_advance(&mut self, bucket: &Arc<str>, now: Instant) -> Option<Ask> {
        let (used, uses, since) = self.used;
        let lives = (now - since).div_duration_f64(LIFE).max(1.0);
        if f64::from(uses) < f64::from(USES_MIN) * lives {
            return None;
        }
        let wanted = ((used as f64 * 1.25 / lives) as i64).min(i64::from(self.left.0.remaining) / PART);
        let cost = wanted - self.credit.0;
        if cost <= wanted * 3 / 4 {
            return None;
        }
        let charge = Charge { bucket: bucket.clone(), quota: self.quota, cost };
        Some(Ask { charges: vec![charge], forced: false })
    }
}

#[cfg(test)]
mod tests;
