//! One signed request to a receiver. It is bounded in time and in what is read, follows no redirect, goes through no proxy, and reaches
//! only addresses that the [`Guard`] admits.

use super::{
    guard::{Guard, Refused},
    secret::{SigningSecret, signatures},
};
use crate::{clock::UnixMs, retry_after::retry_after};
use futures_util::StreamExt;
use http::{StatusCode, header};
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::lookup_host;

/// Time for one attempt, from the look-up of the name to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Time for the connection alone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of an answer at most: nobody looks at it, but then the connection can be used again.
const ANSWER_MAX: usize = 64 << 10;
/// Idle connections to one receiver.
const IDLE_MAX: usize = 4;

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// 2xx: it was taken.
    Taken {
        /// Its status.
        status: u16,
    },
    /// 410: nothing is wanted any more.
    Gone,
    /// Anything else.
    Failed {
        /// Its status, if there was an answer.
        status: Option<u16>,
        /// What was wrong, for the owner of the endpoint.
        error: String,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
}

/// Sends. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    guard: Guard,
    /// With TLS: public addresses, and private ones that are named.
    tls: Client,
    /// Without: those that are named.
    plain: Client,
}

/// A message that is sent to one receiver, perhaps more than once.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Where to.
    pub url: &'a str,
    /// The same with every attempt: receivers know repeats by it.
    pub id: &'a str,
    /// JSON.
    pub body: &'a [u8],
}

impl Sender {
    /// A sender that goes where `guard` lets it.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(guard: Guard) -> reqwest::Result<Self> {
        let client = |tls| {
            Client::builder()
                .redirect(Policy::none())
                .no_proxy()
                .timeout(TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_max_idle_per_host(IDLE_MAX)
                .user_agent(concat!("longhaul/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Arc::new(Admitted { guard: guard.clone(), tls }))
                .https_only(tls)
                .build()
        };
        Ok(Self { tls: client(true)?, plain: client(false)?, guard })
    }

    /// What judges URLs.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sends it once, signed with each of the secrets: within 15 s.
    ///
    /// # Cancel safety
    /// The receiver may have had it.
    pub async fn send(&self, message: Message<'_>, secrets: &[SigningSecret]) -> Attempt {
        let url = match self.guard.url(message.url) {
            Ok(url) => url,
            Err(refused) => return refuse(refused),
        };
        let (now, tls) = (UnixMs::now(), url.scheme() == "https");
        let client = if tls { &self.tls } else { &self.plain };
        let request = client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", now.0 / 1_000)
            .header("webhook-signature", signatures(secrets, message.id, now, message.body))
            .body(message.body.to_vec());
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Attempt::failed(None, why(&error)),
        };
        // What a resolver of the system has put in between is seen here.
        if answer.remote_addr().is_some_and(|peer| !self.guard.admits(peer.ip(), tls)) {
            return refuse(Refused::Address);
        }
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let mut read = 0;
        let mut chunks = answer.bytes_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            read += chunk.len();
            if read > ANSWER_MAX {
                break;
            }
        }
        judge(status, retry_after)
    }
}

impl Attempt {
    fn failed(status: Option<u16>, error: impl Into<String>) -> Self {
        Self::Failed { status, error: error.into(), retry_after: None }
    }
}

fn refuse(refused: Refused) -> Attempt {
    Attempt::failed(None, format!("the URL is not called: {refused}"))
}

fn judge(status: StatusCode, retry_after: Option<Duration>) -> Attempt {
    match status {
        StatusCode::GONE => Attempt::Gone,
        status if status.is_success() => Attempt::Taken { status: status.as_u16() },
        status => {
            let error = match status.is_redirection() {
                true => format!("status {status}: redirects are not followed"),
                false => format!("status {status}"),
            };
            Attempt::Failed { status: Some(status.as_u16()), error, retry_after }
        }
    }
}

/// What went wrong, without addresses: they are none of a tenant's business.
fn why(error: &reqwest::Error) -> &'static str {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let refused = chain.clone().any(|error| error.is::<Refused>());
    let said = |word: &str| chain.clone().any(|error| error.to_string().contains(word));
    match () {
        () if refused => "the URL is not called: its address is not public",
        () if error.is_timeout() => "no answer in 15 s",
        () if said("dns error") => "the name was not found",
        () if said("certificate") => "the certificate is not valid",
        () if error.is_connect() => "no connection",
        () => "the connection broke",
    }
}

/// Looks names up and refuses them if one of their addresses is refused.
struct Admitted {
    guard: Guard,
    tls: bool,
}

impl Resolve for Admitted {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, tls) = (self.guard.clone(), self.tls);
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            if !found.iter().all(|address| guard.admits(address.ip(), tls)) {
                return Err(Refused::Address.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
