//! Tickets for sockets: who had them made is let in by them.

use super::{Visitor, bearer};
use http::{HeaderMap, Uri};
use shared::{
    clock::UnixMs,
    identity::{ApiKey, Caller, Credential, Holder},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// The only path that takes them.
const PATH: &str = "/v1/ws";

/// The ticket that a request for a socket shows.
pub(super) fn shown(uri: &Uri) -> Option<&str> {
    let query = uri.query().filter(|_| uri.path() == PATH)?;
    query.split('&').find_map(|pair| pair.strip_prefix("ticket="))
}

/// Whom a ticket of this caller lets in.
pub(crate) fn holder(visitor: &Visitor, headers: &HeaderMap) -> Holder {
    let caller = &visitor.caller;
    match (&caller.credential, bearer(headers)) {
        (Credential::Operator, _) => Holder::Operator,
        (Credential::Key(_), Some(key)) => Holder::Key { digest: ApiKey::digest(key) },
        (Credential::Token(subject), _) => {
            let left = visitor.until.map(|until| until.saturating_duration_since(Instant::now()));
            Holder::Token {
                subject: subject.clone(),
                project: caller.project,
                project_name: caller.project_name.clone(),
                scopes: caller.scopes.to_string(),
                until: UnixMs::now().plus(left.unwrap_or_default()),
            }
        }
        (Credential::Nothing | Credential::Key(_), _) => Holder::Nobody,
    }
}

/// A user of the identity provider, for as long as the token is good that the ticket was made with.
pub(super) fn user(holder: Holder) -> Option<Arc<Visitor>> {
    let Holder::Token { subject, project, project_name, scopes, until } = holder else { return None };
    let left = u64::try_from(until.0 - UnixMs::now().0).ok()?;
    let credential = Credential::Token(subject);
    let caller = Caller { project, project_name, credential, scopes: Holder::scopes(&scopes) };
    Some(Arc::new(Visitor::new(caller, Some(Instant::now() + Duration::from_millis(left)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_take_tickets() {
        let shown = |uri: &'static str| shown(&Uri::from_static(uri)).map(str::to_owned);
        assert_eq!(shown("/v1/ws?ticket=wst_a").as_deref(), Some("wst_a"));
        assert_eq!(shown("/v1/ws?x=1&ticket=wst_a&ticket=wst_b").as_deref(), Some("wst_a"));
        for none in ["/v1/ws", "/v1/ws?ticke=wst_a", "/v1/tasks?ticket=wst_a", "/v1/ws/?ticket=wst_a"] {
            assert_eq!(shown(none), None, "{none}");
        }
    }
}
