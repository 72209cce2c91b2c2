//! The public keys of the identity provider: a JWK set, from a file or from its URL.
//!
//! One task reads the set anew every ten minutes, and at once (though at most every 30 s) when a token names a key that is not in
//! it. While the provider is away the last good set stays. A token has no say in where keys come from.

use http_body_util::BodyExt;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use shared::config::KeySource;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a set is good.
const FRESH: Duration = Duration::from_secs(600);
/// Least time between two looks.
const AGAIN: Duration = Duration::from_secs(30);
/// Longest time of a look, and longest set, bytes.
const LOOK_MAX: Duration = Duration::from_secs(5);
const SET_MAX: usize = 1 << 20;

/// A key of the provider.
pub(super) struct Key {
    /// What verifies.
    pub(super) key: DecodingKey,
    /// The one algorithm it is for, where the set says so.
    algorithm: Option<KeyAlgorithm>,
}

#[derive(Clone, Default)]
struct Known {
    keys: Arc<HashMap<String, Arc<Key>>>,
    /// When the provider was last asked.
    asked: Option<Instant>,
}

/// The provider's keys, by their ids.
pub(super) struct Issuer {
    known: watch::Receiver<Known>,
    wanted: Arc<Notify>,
    /// Least time between two looks.
    again: Duration,
}

impl Issuer {
    /// Starts reading the set, on `tasks`.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        source: KeySource,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::paced(tasks, source, stop, AGAIN)
    }

    fn paced(
        tasks: &mut JoinSet<()>,
        source: KeySource,
        stop: CancellationToken,
        again: Duration,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(LOOK_MAX)
            .build()?;
        let (tell, known) = watch::channel(Known::default());
        let wanted = Arc::new(Notify::new());
        let looking = look(http, source, tell, wanted.clone(), again);
        tasks.spawn(async move {
            stop.run_until_cancelled(looking).await;
        });
        Ok(Self { known, wanted, again })
    }

    /// The key that a token names; a token that names none means the only one there is.
    ///
    /// # Cancel safety
    /// Dropping the future stops no look.
    pub(super) async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<Key>> {
        let mut known = self.known.clone();
        let now = known.borrow_and_update().clone();
        let found = match now.find(id) {
            Some(found) => found,
            None if now.asked.is_some_and(|asked| asked.elapsed() < self.again) => return None,
            None => {
                self.wanted.notify_one();
                timeout(LOOK_MAX, known.changed()).await.ok()?.ok()?;
                let now = known.borrow().clone();
                now.find(id)?
            }
        };
        found.is_for(algorithm).then_some(found)
    }
}

impl Known {
    fn find(&self, id: Option<&str>) -> Option<Arc<Key>> {
        match id {
            Some(id) => self.keys.get(id).cloned(),
            None if self.keys.len() == 1 => self.keys.values().next().cloned(),
            None => None,
        }
    }
}

/// Reads the set again and again. What cannot be read changes nothing.
async fn look(
    http: reqwest::Client,
    source: KeySource,
    tell: watch::Sender<Known>,
    wanted: Arc<Notify>,
    again: Duration,
) {
    loop {
        let read = read(&http, &source).await;
        tell.send_modify(|known| {
            known.asked = Some(Instant::now());
            match read {
                Ok(set) => known.keys = Arc::new(set.keys.iter().filter_map(usable).collect()),
                Err(error) => tracing::warn!(%error, "the identity provider's keys cannot be read"),
            }
        });
        sleep(again).await;
        // Woken, or not.
        let _ = timeout(FRESH - again, wanted.notified()).await;
    }
}

async fn read(http: &reqwest::Client, source: &KeySource) -> anyhow::Result<JwkSet> {
    let text = match source {
        KeySource::File(path) => tokio::fs::read(path).await?,
        KeySource::Url(url) => timeout(LOOK_MAX, download(http, url)).await??,
    };
    Ok(serde_json::from_slice(&text)?)
}

async fn download(http: &reqwest::Client, url: &str) -> anyhow::Result<Vec<u8>> {
    let answer = http.get(url).send().await?;
    anyhow::ensure!(answer.status() == 200, "status {}", answer.status());
    let body = http_body_util::Limited::new(reqwest::Body::from(answer), SET_MAX);
    let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok(body.to_bytes().into())
}

impl Key {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        let same = |own: KeyAlgorithm| own.to_string() == format!("{algorithm:?}");
        self.key.family() == algorithm.family() && self.algorithm.is_none_or(same)
    }
}

/// A public key for signatures, with its id. Shared secrets are none: whoever verifies could sign.
fn usable(jwk: &Jwk) -> Option<(String, Arc<Key>)> {
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|is_for| *is_for == PublicKeyUse::Signature);
    let key = DecodingKey::from_jwk(jwk).ok().filter(|key| signs && key.family() != AlgorithmFamily::Hmac)?;
    let id = jwk.common.key_id.clone().unwrap_or_default();
    Some((id, Arc::new(Key { key, algorithm: jwk.common.key_algorithm })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn write(path: &Path, kids: &[&str]) {
        let key = |kid: &&str| {
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": kid,
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
        };
        let set = serde_json::json!({"keys": kids.iter().map(key).collect::<Vec<_>>()});
        std::fs::write(path, set.to_string()).expect("a file is written");
    }

    async fn knows(issuer: &Issuer, kid: &str) -> bool {
        issuer.key(Some(kid), Algorithm::EdDSA).await.is_some()
    }

    /// A provider with a file, its issuer, and what keeps it going.
    fn provider(kids: &[&str], again: Duration) -> (tempfile::TempDir, PathBuf, Issuer, JoinSet<()>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwks.json");
        write(&path, kids);
        let mut tasks = JoinSet::new();
        let source = KeySource::File(path.clone());
        let issuer = Issuer::paced(&mut tasks, source, CancellationToken::new(), again).expect("a client");
        (folder, path, issuer, tasks)
    }

    #[tokio::test]
    async fn a_new_key_is_looked_for_and_a_lost_set_stays() {
        let again = Duration::from_millis(300);
        let (_folder, path, issuer, _tasks) = provider(&["old"], again);
        assert!(knows(&issuer, "old").await);
        write(&path, &["new"]);
        sleep(again * 2).await;
        assert!(
            knows(&issuer, "new").await && !knows(&issuer, "old").await,
            "the provider has changed its key"
        );
        std::fs::remove_file(&path).expect("a file is removed");
        sleep(again * 2).await;
        assert!(!knows(&issuer, "newer").await && knows(&issuer, "new").await, "the last good set stays");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_look_that_is_not_due() {
        let (_folder, path, issuer, _tasks) = provider(&["old"], AGAIN);
        assert!(knows(&issuer, "old").await);
        write(&path, &["new"]);
        let asked = std::time::Instant::now();
        assert!(!knows(&issuer, "new").await && asked.elapsed() < LOOK_MAX);
    }

    #[tokio::test]
    async fn a_token_that_names_no_key_means_the_only_one() {
        for (kids, found) in [(&["one"][..], true), (&["one", "other"], false), (&[], false)] {
            let (_folder, _path, issuer, _tasks) = provider(kids, AGAIN);
            assert_eq!(issuer.key(None, Algorithm::EdDSA).await.is_some(), found, "{kids:?}");
        }
    }

    #[test]
    fn a_key_is_for_its_signatures_alone() {
        let key = |more: &[(&str, &str)]| {
            let mut json = serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "k",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
            more.iter().for_each(|(name, value)| json[name] = (*value).into());
            usable(&serde_json::from_value(json).expect("a JWK")).map(|(_, key)| key)
        };
        let good = key(&[("use", "sig"), ("alg", "EdDSA")]).expect("a good key");
        assert!(good.is_for(Algorithm::EdDSA) && !good.is_for(Algorithm::RS256));
        assert!(!good.is_for(Algorithm::HS256), "a public key is no shared secret");
        assert!(!key(&[("alg", "ES256")]).expect("odd").is_for(Algorithm::EdDSA), "the set says for what");
        assert!(key(&[]).expect("nothing said").is_for(Algorithm::EdDSA));
        assert!(key(&[("use", "enc")]).is_none(), "it is for secrets");
        let shared = serde_json::json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"});
        assert!(
            usable(&serde_json::from_value(shared).expect("a JWK")).is_none(),
            "whoever verifies could sign"
        );
    }

    #[tokio::test]
    async fn keys_come_from_an_address_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwks.json");
        write(&path, &["served"]);
        let set = std::fs::read_to_string(&path).expect("a file is read");
        let app = axum::Router::new().route("/keys", axum::routing::get(async || set));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.expect("a server") });
        for (path, found) in [("keys", true), ("none", false)] {
            let source = KeySource::Url(format!("http://{address}/{path}"));
            let issuer = Issuer::start(&mut tasks, source, CancellationToken::new()).expect("a client");
            assert_eq!(knows(&issuer, "served").await, found, "{path}");
        }
    }
}
