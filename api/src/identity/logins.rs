//! Callers who try keys and tokens: after too many bad ones from an address those that are not known are not looked at any more.

use crate::{error::ApiError, limits};
use shared::limits::{Ask, Charge, MemoryLimits};
use std::net::IpAddr;

/// Counts bad keys and tokens, by address, in this process.
pub(super) struct Logins {
    quota: Option<u32>,
    buckets: MemoryLimits,
}

impl Logins {
    pub(super) fn new(quota: Option<u32>) -> Self {
        Self { quota, buckets: MemoryLimits::default() }
    }

    /// Whether one from there is looked at.
    ///
    /// # Errors
    /// 429.
    pub(super) fn may_try(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        let wait = self.charge(address).map(|charge| self.buckets.wait(&charge)).unwrap_or_default();
        if wait.is_zero() { Ok(()) } else { Err(ApiError::Suspicious { wait }) }
    }

    /// It was bad.
    pub(super) fn failed(&self, address: Option<IpAddr>) {
        if let Some(charge) = self.charge(address) {
            let _ = self.buckets.judge(&[Ask { charges: vec![charge], forced: false }]);
        }
    }

    fn charge(&self, address: Option<IpAddr>) -> Option<Charge> {
        let bucket = limits::bucket(address?).to_string().into();
        Some(Charge { bucket, quota: self.quota?, cost: 1 })
    }
}
