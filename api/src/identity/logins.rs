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

    /// Before one is looked at: it counts, until it turns out to be good.
    ///
    /// # Errors
    /// 429.
    pub(super) fn begin(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(ask) = self.ask(address, 1) else { return Ok(()) };
        let verdicts = self.buckets.judge(&[ask]);
        match verdicts.first() {
            Some(refused) if !refused.charged => Err(ApiError::Suspicious { wait: refused.left[0].wait }),
            _ => Ok(()),
        }
    }

    /// It was good.
    pub(super) fn good(&self, address: Option<IpAddr>) {
        if let Some(ask) = self.ask(address, -1) {
            let _ = self.buckets.judge(&[ask]);
        }
    }

    fn ask(&self, address: Option<IpAddr>, cost: i64) -> Option<Ask> {
        let bucket = limits::bucket(address?).to_string().into();
        Some(Ask { charges: vec![Charge { bucket, quota: self.quota?, cost }], forced: false })
    }
}
