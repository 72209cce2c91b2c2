//! Tokens of the identity provider (RFC 7519, by the rules of RFC 8725): signed by one of its public keys with one of the
//! configured algorithms, for us, by it, not expired, and naming who it is for and the project.
//!
//! A token that was verified is remembered for a minute. It cannot be revoked: what ends it is its own `exp`.

use super::{Visitor, issuer::Issuer};
use crate::{error::ApiError, fetch::DEADLINE};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};
use shared::{
    clock::UnixMs,
    config::Jwt,
    identity::{Caller, Credential, Digest, Scope, Scopes},
    store::{Project, Registry},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Longest token, bytes.
const TOKEN_MAX: usize = 8 << 10;
/// Clocks may differ by this much, seconds.
const LEEWAY: u64 = 30;
/// Longest time a token counts as good, seconds: some are said to live for ever.
const LIFE_MAX: f64 = 86_400.0 * 366.0;
/// How long a verified token is remembered.
const FRESH: Duration = Duration::from_secs(60);
/// Most tokens remembered.
const KNOWN_MAX: usize = 10_000;

/// Knows callers by their tokens.
pub(super) struct Tokens {
    project_claim: String,
    scopes_claim: String,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    issuer: Issuer,
    registry: Arc<dyn Registry>,
    known: Mutex<HashMap<Digest, (Arc<Visitor>, Instant)>>,
}

#[derive(Deserialize)]
struct Claims {
    /// A text, and no list that holds the right one among others.
    #[serde(rename = "iss")]
    _iss: String,
    sub: String,
    exp: f64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Tokens {
    /// Starts reading the provider's keys, on `tasks`. `None`: tokens are not taken.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        rules: &Jwt,
        registry: Arc<dyn Registry>,
        stop: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let (Some(issuer), Some(audience), Some(jwks)) = (&rules.issuer, &rules.audience, &rules.jwks) else {
            return Ok(None);
        };
        let algorithms: Vec<Algorithm> =
            rules.algorithms.iter().filter_map(|name| name.parse().ok()).collect();
        let mut validation = Validation::new(algorithms[0]);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(Some(Self {
            project_claim: rules.project_claim.clone(),
            scopes_claim: rules.scopes_claim.clone(),
            algorithms,
            validation,
            issuer: Issuer::start(tasks, jwks.clone(), stop)?,
            registry,
            known: Mutex::default(),
        }))
    }

    /// Whose token this is, if it was verified a moment ago.
    pub(super) fn known(&self, digest: &Digest) -> Option<Arc<Visitor>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|(_, at)| at.elapsed() < FRESH).map(|(visitor, _)| visitor.clone())
    }

    /// Whose token this is, if it is a good one.
    ///
    /// # Errors
    /// The database is away.
    pub(super) async fn find(&self, token: &str, digest: Digest) -> Result<Option<Arc<Visitor>>, ApiError> {
        if token.len() > TOKEN_MAX || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Ok(None);
        }
        let verified = self
            .verify(token)
            .await
            .filter(|claims| !claims.sub.trim().is_empty() && !claims.sub.contains('\0'));
        let Some(claims) = verified else { return Ok(None) };
        let Some(project) = self.project(&claims).await? else { return Ok(None) };
        let left = claims.exp + LEEWAY as f64 - UnixMs::now().0 as f64 / 1_000.0;
        let left = Duration::try_from_secs_f64(left.min(LIFE_MAX)).unwrap_or_default();
        let until = Instant::now() + left;
        let scopes = scopes(claims.others.get(&self.scopes_claim));
        let caller = Caller {
            project: project.id,
            project_name: project.name.into(),
            credential: Credential::Token(claims.sub.into()),
            scopes,
        };
        let visitor = Arc::new(Visitor::new(caller, Some(until)));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(digest, (visitor.clone(), Instant::now()));
        Ok(Some(visitor))
    }

    async fn verify(&self, token: &str) -> Option<Claims> {
        let header = decode_header(token).ok()?;
        // Extensions that must be understood are not, and keys come from the configured place alone.
        if header.crit.is_some() || !self.algorithms.contains(&header.alg) {
            return None;
        }
        let key = self.issuer.key(header.kid.as_deref(), header.alg).await?;
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        Some(decode::<Claims>(token, &key.key, &validation).ok()?.claims)
    }

    /// The project that the token names, by name or id, if there is one.
    async fn project(&self, claims: &Claims) -> Result<Option<Project>, ApiError> {
        let Some(named) = claims.others.get(&self.project_claim).and_then(Value::as_str) else {
            return Ok(None);
        };
        let found = match named.parse() {
            Ok(id) => timeout(DEADLINE, self.registry.project_by_id(id)).await??,
            Err(_) if !Project::is_name(named) => None,
            Err(_) => timeout(DEADLINE, self.registry.project(named)).await??,
        };
        Ok(found)
    }
}

/// Scopes as a list, or as one text with blanks. Other systems' scopes may be among them.
fn scopes(claim: Option<&Value>) -> Scopes {
    let names: Vec<&str> = match claim {
        Some(Value::String(text)) => text.split(' ').collect(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    names.into_iter().filter_map(|name| name.parse::<Scope>().ok()).collect()
}
