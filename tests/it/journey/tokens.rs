//! Tokens of an identity provider: who has a good one is let in, and whatever is wrong with another is nobody's business.

use super::both_modes;
use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use harness::{App, Client, Mode, within};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

both_modes!(good_tokens_are_let_in, bad_tokens_are_all_refused_alike);

pub(crate) const ISSUER: &str = "https://login.example.com/";
pub(crate) const AUDIENCE: &str = "longhaul";

/// A key of the provider.
struct Signer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    /// The public half.
    jwk: Value,
}

impl Signer {
    fn new(id: &'static str, algorithm: Algorithm) -> anyhow::Result<Self> {
        let pair = match algorithm {
            Algorithm::ES256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
            Algorithm::EdDSA => KeyPair::generate_for(&rcgen::PKCS_ED25519)?,
            _ => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?,
        };
        let (pem, raw) = (pair.serialize_pem().into_bytes(), pair.public_key_raw());
        let (key, jwk) = match algorithm {
            Algorithm::ES256 => {
                let [x, y] = [1..33, 33..65].map(|part| BASE64.encode(&raw[part]));
                (EncodingKey::from_ec_pem(&pem)?, json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}))
            }
            Algorithm::EdDSA => {
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(raw)});
                (EncodingKey::from_ed_pem(&pem)?, jwk)
            }
            _ => {
                let key = EncodingKey::from_rsa_pem(&pem)?;
                let jwk = serde_json::to_value(Jwk::from_encoding_key(&key, algorithm)?)?;
                (key, jwk)
            }
        };
        let mut signer = Self { id, algorithm, key, jwk };
        signer.jwk["kid"] = json!(id);
        signer.jwk["alg"] = json!(format!("{algorithm:?}"));
        Ok(signer)
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) }
    }

    fn sign(&self, header: &Header, claims: &Value) -> anyhow::Result<String> {
        Ok(encode(header, claims, &self.key)?)
    }

    fn token(&self, claims: &Value) -> anyhow::Result<String> {
        self.sign(&self.header(), claims)
    }
}

fn now() -> i64 {
    shared::clock::UnixMs::now().seconds()
}

/// Good claims with a change; null takes a claim away.
fn claims(change: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now() + 600, "project": "acme",
                            "scope": "openid submit read"});
    for (name, value) in change.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    if let Some(claims) = claims.as_object_mut() {
        claims.retain(|_, value| !value.is_null());
    }
    claims
}

/// An app that takes the tokens of these keys, and has a project.
async fn app(mode: Mode, jwks: &str) -> anyhow::Result<App> {
    let app = App::with(mode)
        .env("LONGHAUL_LIMITS__IP_FAILED_LOGINS_PER_MINUTE", "none")
        .env("LONGHAUL_JWT__ISSUER", ISSUER)
        .env("LONGHAUL_JWT__AUDIENCE", AUDIENCE);
    let app = app.env("LONGHAUL_JWT__JWKS", jwks).start().await?;
    app.tenant("acme", "read").await?;
    Ok(app)
}

fn set(signers: &[&Signer]) -> String {
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.jwk).collect();
    json!({"keys": keys}).to_string()
}

/// A provider's public keys, and a good token of it.
pub(crate) fn of_a_provider() -> anyhow::Result<(String, String)> {
    let signer = Signer::new("ec", Algorithm::ES256)?;
    Ok((set(&[&signer]), signer.token(&claims(&json!({})))?))
}

async fn status(app: &App, token: &str) -> anyhow::Result<u16> {
    Ok(app.client().with_key(token).get("/v1/tasks").await?.status)
}

async fn good_tokens_are_let_in(mode: Mode) -> anyhow::Result<()> {
    let (ec, ed) = (Signer::new("ec", Algorithm::ES256)?, Signer::new("ed", Algorithm::EdDSA)?);
    let provider = Provider::start(set(&[&ec, &ed])).await?;
    let app = app(mode, &format!("{}/jwks", provider.url)).await?;
    assert_eq!(status(&app, &ed.token(&claims(&json!({})))?).await?, 200);
    let ada = app.client().with_key(ec.token(&claims(&json!({"aud": ["other", AUDIENCE]})))?);
    let id = ada.ask("hello", json!({})).await?;
    assert_eq!(ada.ended(&id).await?["status"], "completed");
    assert_eq!(ada.post("/v1/batches", &json!({})).await?.status, 403, "the token has no such scope");
    let list = app.client().with_key(ed.token(&claims(&json!({"scope": ["read"]})))?);
    assert_eq!(list.post("/v1/tasks", &json!({})).await?.status, 403);
    assert_eq!(
        list.task(&id).await?["id"],
        id.as_str(),
        "whoever is of the project sees what is the project's"
    );
    for n in 0..20 {
        let stranger = Header { kid: Some(format!("unknown-{n}")), ..ec.header() };
        assert_eq!(status(&app, &ec.sign(&stranger, &claims(&json!({})))?).await?, 401);
    }
    assert!(provider.asked.load(Relaxed) <= 2, "strangers do not make us ask the provider again and again");
    // A stream ends with its token; clocks may differ by 30 s.
    let brief = app.client().with_key(ec.token(&claims(&json!({"exp": now() - 26})))?);
    let long = brief.ask("a long one", json!({"ttft_ms": 60_000})).await?;
    let stream = brief.open_events(&long, None).await?;
    tokio::time::timeout(Duration::from_secs(10), stream.text()).await.context("the stream goes on")??;
    Ok(())
}

/// The provider's web server: whatever is asked for, it answers with the set, and counts.
struct Provider {
    url: String,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Provider {
    async fn start(set: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (url, asked) = (format!("http://{}", listener.local_addr()?), Arc::<AtomicUsize>::default());
        let (mut serving, counter) = (JoinSet::new(), asked.clone());
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Relaxed);
                let mut request = [0; 4096];
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", set.len());
                if stream.read(&mut request).await.is_ok() {
                    stream.write_all(format!("{head}{set}").as_bytes()).await.ok();
                }
            }
        });
        Ok(Self { url, asked, _serving: serving })
    }
}

async fn bad_tokens_are_all_refused_alike(mode: Mode) -> anyhow::Result<()> {
    let (ec, ed, rsa) = (
        Signer::new("ec", Algorithm::ES256)?,
        Signer::new("ed", Algorithm::EdDSA)?,
        Signer::new("rsa", Algorithm::RS256)?,
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("jwks.json");
    let mut keys: Value = serde_json::from_str(&set(&[&ec, &ed, &rsa]))?;
    // A shared secret in the set opens nothing: whoever verifies could sign.
    let secret =
        json!({"kty": "oct", "kid": "secret", "alg": "HS256", "k": BASE64.encode("a well known secret")});
    keys["keys"].as_array_mut().context("a list")?.push(secret);
    std::fs::write(&file, keys.to_string())?;
    let app = app(mode, &file.display().to_string()).await?;
    let good = ec.token(&claims(&json!({})))?;
    assert_eq!(status(&app, &good).await?, 200);
    let nothing = refusal(app.client()).await?;
    let mut bad = wrong_claims(&ec)?;
    bad.extend(wrong_signatures(&ec, &rsa, &keys)?);
    bad.extend(wrong_forms(&good)?);
    assert!(bad.len() >= 36, "{}", bad.len());
    for (what, token) in bad {
        let said = refusal(&app.client().with_key(token)).await.with_context(|| what.clone())?;
        assert_eq!(said, nothing, "{what}");
    }
    within(Duration::from_secs(5), "a good one still works", async || {
        Ok((status(&app, &good).await? == 200).then_some(()))
    })
    .await
}

async fn refusal(client: &Client) -> anyhow::Result<Value> {
    let mut body = client.get("/v1/tasks").await?.expect(401)?;
    body["error"]["request_id"] = Value::Null;
    Ok(body)
}

type Bad = Vec<(String, String)>;

fn wrong_claims(signer: &Signer) -> anyhow::Result<Bad> {
    let changes = [
        json!({"exp": now() - 120}),
        json!({"exp": null}),
        json!({"exp": "tomorrow"}),
        json!({"exp": -1}),
        json!({"exp": 0}),
        json!({"nbf": now() + 120}),
        json!({"nbf": "tomorrow"}),
        json!({"iss": "https://login.example.org/"}),
        json!({"iss": "https://login.example.com"}),
        json!({"iss": null}),
        json!({"iss": ["https://evil.example/"]}),
        json!({"iss": [ISSUER]}),
        json!({"iss": [ISSUER, "https://evil.example/"]}),
        json!({"sub": ""}),
        json!({"sub": " "}),
        json!({"aud": "another"}),
        json!({"aud": []}),
        json!({"aud": ["another"]}),
        json!({"aud": null}),
        json!({"sub": null}),
        json!({"sub": 7}),
        json!({"project": null}),
        json!({"project": "nobody"}),
        json!({"project": 7}),
        json!({"project": ["acme"]}),
        json!({"project": "' or 1=1 --"}),
        json!({"project": shared::task::ProjectId::new().to_string()}),
        json!({"padding": "x".repeat(9_000)}),
    ];
    let token = |change: &Value| Ok((change.to_string(), signer.token(&claims(change))?));
    changes.iter().map(token).collect()
}

fn wrong_signatures(ec: &Signer, rsa: &Signer, keys: &Value) -> anyhow::Result<Bad> {
    let good = claims(&json!({}));
    let thief = Signer::new("ec", Algorithm::ES256)?;
    let named = |id: &str| Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
    let mut bad = vec![("another's signature".to_owned(), thief.token(&good)?)];
    for id in ["unknown", "", "../../../../dev/null", "' union select 'x' --", "rsa", "secret"] {
        bad.push((format!("kid {id:?}"), ec.sign(&named(id), &good)?));
        bad.push((format!("kid {id:?} of another"), thief.sign(&named(id), &good)?));
    }
    bad.push(("no kid".into(), ec.sign(&Header::new(Algorithm::ES256), &good)?));
    let own = Header { jku: Some("http://127.0.0.1:1/jwks".into()), ..thief.header() };
    bad.push(("jku".into(), thief.sign(&own, &good)?));
    let own = Header { x5u: Some("http://127.0.0.1:1/cert".into()), ..thief.header() };
    bad.push(("x5u".into(), thief.sign(&own, &good)?));
    let own = Header { jwk: Some(serde_json::from_value(thief.jwk.clone())?), ..thief.header() };
    bad.push(("jwk".into(), thief.sign(&own, &good)?));
    let critical = Header { crit: Some(vec!["exp".into()]), ..ec.header() };
    bad.push(("crit".into(), ec.sign(&critical, &good)?));
    for algorithm in [Algorithm::PS256, Algorithm::RS512] {
        let other = Header { alg: algorithm, ..rsa.header() };
        bad.push((format!("{algorithm:?} is not taken"), rsa.sign(&other, &good)?));
    }
    // The public key as a shared secret: what a verifier falls for that believes the token.
    let public = keys["keys"][0].to_string();
    for (id, secret) in [("ec", public.as_str()), ("rsa", &public), ("secret", "a well known secret")] {
        let header = Header { kid: Some(id.into()), ..Header::new(Algorithm::HS256) };
        let token = encode(&header, &good, &EncodingKey::from_secret(secret.as_bytes()))?;
        bad.push((format!("HS256 with the key {id}"), token));
    }
    Ok(bad)
}

fn wrong_forms(good: &str) -> anyhow::Result<Bad> {
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { anyhow::bail!("a token has three parts") };
    let mut flipped = signature.to_owned().into_bytes();
    flipped[3] = if flipped[3] == b'A' { b'B' } else { b'A' };
    let more = String::from_utf8(BASE64.decode(payload)?)?.replace("submit read", "submit read admin");
    let mut bad = vec![
        ("a changed signature".to_owned(), format!("{header}.{payload}.{}", String::from_utf8(flipped)?)),
        ("a changed payload".into(), format!("{header}.{}.{signature}", BASE64.encode(more))),
        ("no signature".into(), format!("{header}.{payload}.")),
        ("two parts".into(), format!("{header}.{payload}")),
        ("five parts".into(), format!("{good}.{payload}.{signature}")),
        ("no JSON".into(), format!("{header}.{}.{signature}", BASE64.encode("hello"))),
        ("no base64".into(), format!("{header}.{payload}.%%%")),
    ];
    for none in ["none", "None", "nOnE", ""] {
        let header = json!({"alg": none, "kid": "ec", "typ": "JWT"}).to_string();
        bad.push((format!("alg {none:?}"), format!("{}.{payload}.", BASE64.encode(&header))));
        bad.push((
            format!("alg {none:?}, signed"),
            format!("{}.{payload}.{signature}", BASE64.encode(&header)),
        ));
    }
    Ok(bad)
}
