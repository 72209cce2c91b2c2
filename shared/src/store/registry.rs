//! Who there is: projects, their keys, and what was done to them.

use super::{Page, Result};
use crate::{
    clock::UnixMs,
    identity::{ApiKey, Digest, Holder, Quotas, Scopes},
    task::{ActId, KeyId, ProjectId},
};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Its name, unique.
    pub name: String,
    /// When it was made.
    pub created_at: UnixMs,
    /// Its limits, where they are not those of all projects.
    pub quotas: Quotas,
}

impl Project {
    /// Whether this may be a project's name: 1 to 64 of a-z, 0-9, _, - and ., starting with a letter or digit. A name with
    /// `proj_` in front would look like an id.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        let fits = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.')
        };
        let starts = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        starts && name.len() <= 64 && name.bytes().all(fits) && !name.starts_with(ProjectId::PREFIX)
    }
}

/// A key, without what opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub project: ProjectId,
    /// That project's name.
    pub project_name: String,
    /// What people call it.
    pub name: String,
    /// Its first characters.
    pub hint: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it ends, if it does.
    pub expires_at: Option<UnixMs>,
    /// When it was ended.
    pub revoked_at: Option<UnixMs>,
    /// When it was used last, to the minute.
    pub used_at: Option<UnixMs>,
    /// Its limits, where they are not those of all keys.
    pub quotas: Quotas,
}

impl Key {
    /// Whether people may call a key so: at most 128 characters, and no U+0000.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        name.chars().count() <= 128 && !name.contains('\0')
    }
}

/// A key that is to be made.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// Its SHA-256.
    pub digest: Digest,
    /// Its first characters.
    pub hint: String,
}

impl NewKey {
    /// A new key, and what the registry is told of it.
    #[must_use]
    pub fn generate() -> (ApiKey, Self) {
        let key = ApiKey::generate();
        let new =
            Self { id: KeyId::new(), digest: ApiKey::digest(key.expose()), hint: key.hint().to_owned() };
        (key, new)
    }
}

/// What a new key is for.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Whose it is.
    pub project: ProjectId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// How long it lives; `None`: until it is revoked.
    pub lives: Option<Duration>,
    /// Its limits, where they are not those of all keys.
    pub quotas: Quotas,
}

/// A live key, as it is asked for with every request.
#[derive(Debug, Clone)]
pub struct KnownKey {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub project: ProjectId,
    /// That project's name.
    pub project_name: Arc<str>,
    /// What it may do.
    pub scopes: Scopes,
    /// How long it still lives, at most.
    pub left: Option<Duration>,
}

/// Who has limits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// All callers of a project together.
    Project(ProjectId),
    /// A key.
    Key(KeyId),
}

/// An administrative act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Its id: ids sort by time.
    pub id: ActId,
    /// When.
    pub at: UnixMs,
    /// Who.
    pub actor: Arc<str>,
    /// What: `key.create` and the like.
    pub action: Arc<str>,
    /// Whose it is, what it was done to.
    pub project: Option<ProjectId>,
    /// On what: an id.
    pub target: Arc<str>,
    /// A JSON object: names and values, never a secret.
    pub detail: Arc<str>,
}

/// Who there is. Each change is written together with the [`Act`] that tells of it, in the name of `actor`.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Makes a project. `None`: the name is taken.
    async fn create_project(&self, actor: &str, id: ProjectId, name: &str) -> Result<Option<Project>>;

    /// All projects, by name, at most 10,000.
    async fn projects(&self) -> Result<Vec<Project>>;

    /// The project of that name.
    async fn project(&self, name: &str) -> Result<Option<Project>>;

    /// The project of that id.
    async fn project_by_id(&self, id: ProjectId) -> Result<Option<Project>>;

    /// Makes a key. `None`: there is no such project.
    async fn create_key(&self, actor: &str, key: &NewKey, grant: &Grant) -> Result<Option<Key>>;

    /// The key of that id, ended or not.
    async fn key(&self, id: KeyId) -> Result<Option<Key>>;

    /// Makes a key with the grant of a live one, which ends after `overlap` at the latest. `None`: there is no such live key.
    async fn rotate_key(
        &self,
        actor: &str,
        id: KeyId,
        key: &NewKey,
        overlap: Duration,
    ) -> Result<Option<Key>>;

    /// Sets limits. `false`: there is nobody of that id.
    async fn limit(&self, actor: &str, whose: Whose, quotas: &Quotas) -> Result<bool>;

    /// All limits that differ from those of the configuration.
    async fn quotas(&self) -> Result<Vec<(Whose, Quotas)>>;

    /// Ends a key. Repeating it changes nothing. `None`: there is no such key.
    async fn revoke_key(&self, actor: &str, id: KeyId) -> Result<Option<Key>>;

    /// Newest first, ids below `after`, at most `limit`; those that have ended too.
    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Page<Key>>;

    /// The live ones of these keys, in any order.
    async fn know(&self, digests: &[Digest]) -> Result<Vec<KnownKey>>;

    /// Notes that these keys were used now.
    async fn used(&self, keys: &[KeyId]) -> Result<()>;

    /// Whether a key was ever made, live or not.
    async fn has_keys(&self) -> Result<bool>;

    /// Keeps a ticket, by its SHA-256, for this long; gives its end. Tickets whose time is over go.
    async fn keep_ticket(&self, ticket: &Digest, holder: &Holder, lives: Duration) -> Result<UnixMs>;

    /// Takes a ticket: whoever asks first has it, once.
    async fn take_ticket(&self, ticket: &Digest) -> Result<Option<Holder>>;

    /// The database's clock.
    async fn now(&self) -> Result<UnixMs>;

    /// What was done, newest first, ids below `after`, at most `limit`.
    async fn acts(&self, after: Option<ActId>, limit: u32) -> Result<Page<Act>>;
}
