//! Room for requests: who answers shares [`MOST`], who hangs is counted apart.
//!
//! A receiver is silent while it has owed answers for [`SILENCE`] and given none, and has failed after a request that it has not answered
//! at all, until it answers one. Who has failed gets one request at a time, claimed apart from all others. So a receiver that hangs
//! takes room from the others for a second when it is new, and none after that, unless hundreds of new ones fill all there is.

use shared::store::Receivers;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Requests under way to receivers that answer, of one worker.
const MOST: usize = 256;
/// So many more while receivers are silent or have failed.
const HANGING_MOST: usize = 512;
/// Deliveries of one receiver that one claim takes; more are claimed when half of them are through.
const PER_TARGET: usize = 8;
/// Longest silence of a receiver that is well.
const SILENCE: Duration = Duration::from_secs(1);
/// Receivers that are remembered; beyond that, those that have failed are met as new ones.
const KNOWN_MAX: usize = 2_000;

/// What a request has shown of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It answers, whatever the answer was.
    Answers,
    /// It does not.
    Fails,
    /// It was not asked.
    Nothing,
}

/// What may be claimed.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) limit: usize,
    pub(super) per_target: usize,
    pub(super) receivers: Receivers,
}

/// The receivers that are busy or have failed.
#[derive(Debug, Default)]
pub(super) struct Room {
    receivers: HashMap<Uuid, Receiver>,
}

#[derive(Debug)]
struct Receiver {
    under_way: usize,
    /// Since then it has owed answers and given none.
    silent_since: Instant,
    has_failed: bool,
}

impl Receiver {
    fn hangs(&self, now: Instant) -> bool {
        // Answers may be noted later than they came.
        self.has_failed || (self.under_way > 0 && now.saturating_duration_since(self.silent_since) > SILENCE)
    }
}

impl Room {
    /// A request begins.
    pub(super) fn begin(&mut self, target: Uuid, now: Instant) {
        let new = || Receiver { under_way: 0, silent_since: now, has_failed: false };
        let receiver = self.receivers.entry(target).or_insert_with(new);
        if receiver.under_way == 0 {
            receiver.silent_since = now;
        }
        receiver.under_way += 1;
    }

    /// A request ended at `then`.
    pub(super) fn end(&mut self, target: Uuid, shown: Shown, then: Instant) {
        let Some(receiver) = self.receivers.get_mut(&target) else { return };
        receiver.under_way -= 1;
        if shown != Shown::Nothing {
            receiver.silent_since = then;
            receiver.has_failed = shown == Shown::Fails;
        }
        if receiver.under_way == 0 && !receiver.has_failed {
            self.receivers.remove(&target);
        }
        if self.receivers.len() > KNOWN_MAX {
            self.receivers.retain(|_, receiver| receiver.under_way > 0);
        }
    }

    /// What may be claimed of those that have not failed.
    pub(super) fn for_the_living(&self, now: Instant) -> Share {
        let is_full = |receiver: &Receiver| receiver.has_failed || receiver.under_way > PER_TARGET / 2;
        let hanging = self.under_way(|receiver| receiver.hangs(now));
        let all = self.under_way(|_| true);
        let left = (MOST + HANGING_MOST).saturating_sub(all);
        Share {
            limit: MOST.saturating_sub(all - hanging).min(left),
            // So many hang that the next one may as well.
            per_target: if hanging >= HANGING_MOST / 2 { 1 } else { PER_TARGET },
            receivers: Receivers::AllBut(self.those(is_full)),
        }
    }

    /// What may be claimed of those that have: one request each, to see whether they are back. `None`: there are none.
    pub(super) fn for_the_failed(&self, now: Instant) -> Option<Share> {
        let idle = self.those(|receiver| receiver.has_failed && receiver.under_way == 0);
        let limit = HANGING_MOST.saturating_sub(self.under_way(|receiver| receiver.hangs(now)));
        (!idle.is_empty()).then_some(Share { limit, per_target: 1, receivers: Receivers::Only(idle) })
    }

    fn under_way(&self, which: impl Fn(&Receiver) -> bool) -> usize {
        self.receivers.values().filter(|receiver| which(receiver)).map(|receiver| receiver.under_way).sum()
    }

    fn those(&self, which: impl Fn(&Receiver) -> bool) -> Vec<Uuid> {
        self.receivers.iter().filter(|(_, receiver)| which(receiver)).map(|(target, _)| *target).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_millis(1_001);

    fn begin(room: &mut Room, count: usize, now: Instant) -> Uuid {
        let target = Uuid::new_v4();
        (0..count).for_each(|_| room.begin(target, now));
        target
    }

    /// How many may be claimed, and of whom not.
    fn living(room: &Room, now: Instant) -> (usize, Vec<Uuid>) {
        let Share { limit, receivers: Receivers::AllBut(full), .. } = room.for_the_living(now) else {
            panic!("all but some")
        };
        (limit, full)
    }

    #[test]
    fn who_is_silent_takes_no_room_from_the_others() {
        let (mut room, start) = (Room::default(), Instant::now());
        let hanging: Vec<_> = (0..MOST / PER_TARGET).map(|_| begin(&mut room, PER_TARGET, start)).collect();
        assert_eq!(living(&room, start).0, 0);
        let later = start + LATER;
        let (limit, full) = living(&room, later);
        assert_eq!((limit, full.len()), (MOST, hanging.len()));
        let quick = begin(&mut room, PER_TARGET, later);
        assert_eq!(living(&room, later).0, MOST - PER_TARGET);
        room.end(quick, Shown::Answers, later + SILENCE);
        assert_eq!(living(&room, later + SILENCE).0, MOST - (PER_TARGET - 1), "it answers, late as it is");
    }

    #[test]
    fn one_slow_answer_does_not_hold_up_the_next_requests() {
        let (mut room, start) = (Room::default(), Instant::now());
        begin(&mut room, PER_TARGET / 2, start);
        assert_eq!(living(&room, start + LATER), (MOST, vec![]));
    }

    #[test]
    fn who_has_failed_is_tried_apart_and_one_by_one() {
        let (mut room, now) = (Room::default(), Instant::now());
        assert!(room.for_the_failed(now).is_none());
        let dead = begin(&mut room, 1, now);
        room.end(dead, Shown::Fails, now);
        assert_eq!(living(&room, now), (MOST, vec![dead]));
        let share = room.for_the_failed(now).unwrap();
        assert!(matches!(share.receivers, Receivers::Only(only) if only == [dead]));
        assert_eq!((share.limit, share.per_target), (HANGING_MOST, 1));
        room.begin(dead, now);
        assert!(room.for_the_failed(now).is_none(), "its try is under way");
        assert_eq!(living(&room, now), (MOST, vec![dead]), "and takes no room");
        room.end(dead, Shown::Nothing, now);
        assert!(room.for_the_failed(now).is_some(), "nobody has asked it");
        room.begin(dead, now);
        room.end(dead, Shown::Answers, now);
        assert!(room.receivers.is_empty(), "it is as any other");
    }

    #[test]
    fn where_many_hang_the_new_ones_get_little() {
        let (mut room, start) = (Room::default(), Instant::now());
        (0..MOST / PER_TARGET).for_each(|_| {
            begin(&mut room, PER_TARGET, start);
        });
        assert_eq!(room.for_the_living(start).per_target, PER_TARGET);
        assert_eq!(room.for_the_living(start + LATER).per_target, 1);
    }

    #[test]
    fn there_is_an_end_to_new_ones_that_hang() {
        let (mut room, start) = (Room::default(), Instant::now());
        for second in 0..10 {
            let now = start + second * LATER;
            let (limit, _) = living(&room, now);
            (0..limit).for_each(|_| room.begin(Uuid::new_v4(), now));
        }
        assert_eq!(room.under_way(|_| true), MOST + HANGING_MOST);
    }
}
