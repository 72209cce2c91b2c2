//! Who calls: from what a request shows to a [`Visitor`].
//!
//! A caller shows an API key or a token as `Authorization: Bearer`, or, where browsers cannot, a ticket that was made with one of these. The key in the configuration is the operator's, all others are
//! in the registry. Until the first of any kind exists, callers on this machine need none: the address we listen on, the peer
//! and the `Host` header must all be loopback, and nothing may say that somebody else stands behind the peer (a forwarding header)
//! or that a page from elsewhere makes the browser call (`Origin`).
//!
//! Whatever is wrong with a credential, the answer is one and the same.

mod issuer;
mod keys;
mod logins;
mod loopback;
mod tickets;
mod tokens;

pub(crate) use loopback::is_loopback;
pub(crate) use tickets::holder;

use crate::{error::ApiError, fetch::DEADLINE, limits::Buckets};
use http::{HeaderMap, Uri, Version, header};
use keys::Keys;
use logins::Logins;
use shared::{
    config::{Config, Secret},
    identity::{ApiKey, Caller, Credential, Digest, Holder},
    store::Registry,
};
use std::{net::IpAddr, sync::Arc};
use subtle::ConstantTimeEq;
use tokens::Tokens;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// A caller, for as long as its credential is good.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// Who it is.
    pub(crate) caller: Caller,
    /// What it is charged to.
    pub(crate) buckets: Buckets,
    /// When its credential ends by itself.
    until: Option<Instant>,
    /// Set when its credential was ended.
    revoked: CancellationToken,
}

impl Visitor {
    fn new(caller: Caller, until: Option<Instant>) -> Self {
        Self { buckets: Buckets::of(&caller), caller, until, revoked: CancellationToken::new() }
    }

    /// Returns when the credential is no longer good: then its streams end.
    pub(crate) async fn leaves(&self) {
        let expires = async {
            match self.until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.revoked.cancelled() => {}
            () = expires => {}
        }
    }

    /// Whether the credential is good.
    pub(crate) fn is_good(&self) -> bool {
        !self.revoked.is_cancelled() && self.until.is_none_or(|until| until > Instant::now())
    }
}

/// Knows callers by what they show.
pub(crate) struct Identity {
    operator: Option<(Digest, Arc<Visitor>)>,
    listens_here: bool,
    nobody: Arc<Visitor>,
    logins: Logins,
    keys: Keys,
    tokens: Option<Tokens>,
    registry: Arc<dyn Registry>,
}

impl Identity {
    /// Starts what keeps the known keys true, on `tasks`.
    ///
    /// # Errors
    /// No HTTP client for the identity provider can be made.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        registry: Arc<dyn Registry>,
        config: &Config,
        listen: IpAddr,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let visitor = |credential| Arc::new(Visitor::new(Caller::unlimited(credential), None));
        let operator = config.api.key.as_ref().map(Secret::expose);
        let tokens = Tokens::start(tasks, &config.jwt, registry.clone(), stop.clone())?;
        let nobody = visitor(Credential::Nothing);
        Ok(Self {
            tokens,
            logins: Logins::new(config.limits.ip_failed_logins_per_minute),
            operator: operator.map(|key| (ApiKey::digest(key), visitor(Credential::Operator))),
            listens_here: listen.is_loopback(),
            registry: registry.clone(),
            keys: Keys::start(tasks, registry, nobody.revoked.clone(), stop),
            nobody,
        })
    }

    /// Who calls, from this `peer`, in the name of `address`.
    ///
    /// # Errors
    /// 401, 429, or the database is away and the credential was not seen for a while.
    pub(crate) async fn admit(
        &self,
        peer: Option<IpAddr>,
        address: Option<IpAddr>,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Arc<Visitor>, ApiError> {
        let shown = bearer(headers);
        if let (Some(shown), Some((digest, visitor))) = (shown, &self.operator)
            && bool::from(ApiKey::digest(shown).ct_eq(digest))
        {
            return Ok(visitor.clone());
        }
        if let Some(shown) = shown
            && let Some(visitor) = self.find(shown, address).await?
        {
            return Ok(visitor);
        }
        let ticket = tickets::shown(uri).filter(|_| shown.is_none());
        if let Some(ticket) = ticket
            && let Some(visitor) = self.redeem(ticket, address).await?
        {
            return Ok(visitor);
        }
        // Clients that insist on sending some key are welcome as well.
        let is_open = self.listens_here && self.operator.is_none() && self.tokens.is_none();
        let is_here = is_open && loopback::is_local(peer, version, uri, headers);
        if is_here && self.keys.is_empty().await? {
            return Ok(self.nobody.clone());
        }
        if shown.is_some() || ticket.is_some() {
            self.logins.failed(address);
        }
        Err(ApiError::Unauthorized)
    }

    /// Whom the ticket lets in: once. One of somebody without a credential is no better than none.
    async fn redeem(&self, ticket: &str, address: Option<IpAddr>) -> Result<Option<Arc<Visitor>>, ApiError> {
        self.logins.may_try(address)?;
        let holder = timeout(DEADLINE, self.registry.take_ticket(&ApiKey::digest(ticket))).await??;
        Ok(match holder {
            None | Some(Holder::Nobody) => None,
            Some(Holder::Operator) => self.operator.as_ref().map(|(_, visitor)| visitor.clone()),
            Some(Holder::Key { digest }) => match self.keys.known(&digest) {
                Some(visitor) => visitor.is_good().then_some(visitor),
                None => self.keys.find(digest).await?,
            },
            Some(token @ Holder::Token { .. }) => tickets::user(token),
        })
    }

    async fn find(&self, shown: &str, address: Option<IpAddr>) -> Result<Option<Arc<Visitor>>, ApiError> {
        let digest = ApiKey::digest(shown);
        let is_key = ApiKey::is_well_formed(shown);
        let known = match &self.tokens {
            _ if is_key => self.keys.known(&digest),
            Some(tokens) => tokens.known(&digest),
            None => None,
        };
        if let Some(visitor) = known {
            return Ok(visitor.is_good().then_some(visitor));
        }
        // A key carries a checksum, and looking one up costs little: bad ones from the same address lock no good one out.
        if is_key {
            let found = self.keys.find(digest).await?;
            return match found {
                Some(visitor) => Ok(Some(visitor)),
                None => self.logins.may_try(address).map(|()| None),
            };
        }
        self.logins.may_try(address)?;
        match &self.tokens {
            Some(tokens) => tokens.find(shown, digest).await,
            None => Ok(None),
        }
    }
}

/// The credential that the headers show.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
