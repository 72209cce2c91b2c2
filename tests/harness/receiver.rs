//! A receiver of webhooks that answers with the statuses a test dictates, and keeps what it was sent.

use crate::{ScriptedUpstream, within};
use anyhow::Context;
use serde_json::Value;
use standardwebhooks::Webhook;
use std::{net::IpAddr, time::Duration};

/// A receiver. Dropping it closes it.
#[derive(Debug)]
pub struct Receiver(ScriptedUpstream);

/// A webhook as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Names and values.
    pub headers: reqwest::header::HeaderMap,
    /// The body, verbatim.
    pub body: Vec<u8>,
    /// When it came, Unix seconds.
    pub at: f64,
}

impl Receiver {
    /// Listens, with these statuses to come; the last one is repeated for ever.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(statuses: impl IntoIterator<Item = u16>) -> anyhow::Result<Self> {
        Self::answering(statuses.into_iter().map(|status| Self::answer(status, ""))).await
    }

    /// As [`Receiver::start`], with whole answers.
    ///
    /// # Errors
    /// No port is free.
    pub async fn answering(answers: impl IntoIterator<Item = Vec<u8>>) -> anyhow::Result<Self> {
        Ok(Self(ScriptedUpstream::start(answers).await?))
    }

    /// As [`Receiver::start`], at another of this machine's addresses.
    ///
    /// # Errors
    /// No port is free.
    pub async fn at(address: IpAddr, statuses: impl IntoIterator<Item = u16>) -> anyhow::Result<Self> {
        let answers = statuses.into_iter().map(|status| Self::answer(status, ""));
        Ok(Self(ScriptedUpstream::at(address, answers).await?))
    }

    /// An answer of this status, with more header lines, each with its end.
    #[must_use]
    pub fn answer(status: u16, headers: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status} Status\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
            .into_bytes()
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/hook", self.0.url)
    }

    /// Its port.
    ///
    /// # Errors
    /// Never: it has one.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.0.url.rsplit_once(':').context("a URL without a port")?.1.parse()?)
    }

    /// What came so far.
    ///
    /// # Errors
    /// A head that is none.
    pub fn received(&self) -> anyhow::Result<Vec<Received>> {
        self.0
            .heard_at()
            .into_iter()
            .map(|(head, body, at)| {
                Ok(Received { headers: headers(&head)?, body, at: at.0 as f64 / 1_000.0 })
            })
            .collect()
    }

    /// Waits for so many.
    ///
    /// # Errors
    /// They did not come within 15 s.
    pub async fn has(&self, count: usize) -> anyhow::Result<Vec<Received>> {
        within(Duration::from_secs(15), &format!("{count} webhooks came"), async || {
            Ok(Some(self.received()?).filter(|received| received.len() >= count))
        })
        .await
    }
}

fn headers(head: &str) -> anyhow::Result<reqwest::header::HeaderMap> {
    let lines = head.lines().skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            let name: reqwest::header::HeaderName = name.parse()?;
            Ok((name, value.trim().parse()?))
        })
        .collect()
}

impl Received {
    /// One of its headers.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// What it says, once the official library has verified it.
    ///
    /// # Errors
    /// It is not signed with this secret, or not JSON.
    pub fn verified(&self, secret: &str) -> anyhow::Result<Value> {
        Webhook::new(secret)?.verify(&self.body, &self.headers)?;
        Ok(serde_json::from_slice(&self.body)?)
    }
}
