//! The named runs: which figures of which systems.

use crate::{
    measure::Measure::{
        self, Accept, AcceptPaced, Backlog, FanOut, FirstToken, Hostile, Idle, IdleSockets, InFlight, Read,
        Relay, Slots, Steady, Through,
    },
    system::System::{self, Bullmq, Celery, Longhaul, LonghaulApalis, LonghaulEmbedded, LonghaulGuarded},
};

/// A named run.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) systems: &'static [System],
    pub(crate) measures: &'static [Measure],
}

/// Every profile.
pub(crate) const ALL: &[Profile] = &[
    Profile {
        name: "peers",
        about: "Longhaul beside FastAPI + Celery and BullMQ + Fastify: the same work, in turns",
        systems: &[Longhaul, Celery, Bullmq],
        measures: &[Accept, Through, Steady, Idle, Read, Slots],
    },
    Profile {
        name: "modes",
        about: "Longhaul on Postgres + Redis, with both transports, and embedded on SQLite",
        systems: &[Longhaul, LonghaulApalis, LonghaulEmbedded],
        measures: &[Accept, Through, Steady, Idle, Read, Slots],
    },
    Profile {
        name: "size",
        about: "what grows: a backlog of 200,000, 4,000 calls in flight in one worker, token streams",
        systems: &[Longhaul],
        measures: &[Backlog, InFlight, Relay],
    },
    Profile {
        name: "trust",
        about: "what keys and limits cost, and what they are good for: one project that asks for ten times what there is",
        systems: &[Longhaul, LonghaulGuarded],
        measures: &[Accept, AcceptPaced, Read, Through, Hostile],
    },
    Profile {
        name: "live",
        about: "the first token beside the model's own, streams as fast as they go, a thousand watchers, 10,000 idle sockets",
        systems: &[Longhaul, LonghaulEmbedded],
        measures: &[FirstToken, Relay, FanOut, IdleSockets],
    },
    Profile {
        name: "all",
        about: "everything of every system",
        systems: &[Longhaul, LonghaulApalis, LonghaulEmbedded, Celery, Bullmq],
        measures: &[Accept, Through, Steady, Idle, Read, Slots, Backlog, InFlight, Relay],
    },
];

impl Profile {
    /// The profile of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|profile| profile.name == name)
    }
}
