//! The one file that knows that two modes exist.

use crate::{
    caps::Caps,
    config::{Config, Mode},
    events::{Events, MemoryEvents, RedisEvents},
    folder,
    limits::{Limits, MemoryLimits, RedisLimits, SharedLimits},
    link,
    objects::Objects,
    pauses::Pauses,
    queue::{self, ApalisQueue, MemoryQueue, Queue, SortedQueue, Transport},
    redact::without_logins,
    store::{PostgresStore, Registry, Served, SqliteStore, Store, Webhooks},
    task::QueueName,
};
use object_store::{ObjectStore, aws::AmazonS3Builder, local::LocalFileSystem, prefix::PrefixStore};
use std::{path::Path, sync::Arc};

/// What both rooms work with. Cheap to clone.
#[derive(Clone)]
pub struct Backends {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Who there is.
    pub registry: Arc<dyn Registry>,
    /// Who is told of ends by webhook, and what is on its way.
    pub webhooks: Arc<dyn Webhooks>,
    /// The doorbell.
    pub queue: Arc<dyn Queue>,
    /// The shout.
    pub events: Arc<dyn Events>,
    /// What callers may do.
    pub limits: Arc<dyn Limits>,
    /// The lanes' names.
    pub lanes: Arc<[QueueName]>,
    /// Large bodies.
    pub objects: Objects,
    /// Upstreams that are left alone.
    pub pauses: Pauses,
    /// How many tasks of a project may run at once.
    pub caps: Caps,
}

/// A backend could not be opened: one line for a person, with the cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Unopened {
    what: String,
    why: String,
}

fn unopened(what: impl Into<String>) -> impl FnOnce(&dyn std::error::Error) -> Unopened {
    let what = what.into();
    move |error| {
        let chain = std::iter::successors(Some(error), |error| error.source());
        // Some errors already end with their source's words.
        let why = chain.map(ToString::to_string).reduce(|why, source| match why.ends_with(&source) {
            true => why,
            false => format!("{why}: {source}"),
        });
        let why = why.unwrap_or_default();
        Unopened { what: without_logins(&what).into_owned(), why: without_logins(&why).into_owned() }
    }
}

impl Backends {
    /// Opens what the configuration names, within 5 s. The embedded database is migrated; a distributed one must be up to date.
    ///
    /// # Errors
    /// One line that says what could not be opened and why.
    pub async fn open(config: &Config) -> Result<Self, Unopened> {
        match &config.mode {
            Mode::Embedded { data_dir } => Self::embedded(config, data_dir).await,
            Mode::Distributed { database_url, redis_url } => {
                let store = PostgresStore::open(database_url.expose(), config.database_connections)
                    .await
                    .map_err(|error| unopened("cannot use the Postgres database")(&error))?;
                store.check().await.map_err(|error| unopened("cannot use the Postgres database")(&error))?;
                if let Some(error) = link::absence(redis_url.expose()).await {
                    // What it says of an address may hold a login.
                    let error = without_logins(&error.to_string()).into_owned();
                    tracing::warn!(%error, "Redis is away: started without it, tasks are found in the database meanwhile");
                }
                if let Some(policy) = link::eviction(redis_url.expose()).await {
                    tracing::warn!(
                        policy,
                        "Redis throws keys away when its memory is full: set maxmemory-policy to noeviction, or event logs of \
                         running tasks get lost"
                    );
                }
                let queue = queue_at(redis_url.expose(), config)
                    .await
                    .map_err(|error| unopened("cannot use Redis")(&error))?;
                let events = RedisEvents::open(redis_url.expose(), config.events_keep)
                    .await
                    .map_err(|error| unopened("cannot use Redis")(&error))?;
                let limits = RedisLimits::open(redis_url.expose())
                    .await
                    .map_err(|error| unopened("cannot use Redis")(&error))?;
                let objects = config.objects.url.as_deref().map(object_store_at).transpose()?;
                let store = Arc::new(store);
                Ok(Self {
                    pauses: Pauses::new(store.clone(), Arc::new(config.clone())),
                    caps: Caps::new(store.clone(), store.clone(), config.limits.project.concurrent_tasks),
                    registry: store.clone(),
                    webhooks: store.clone(),
                    store,
                    lanes: lanes(config),
                    queue,
                    events: Arc::new(events),
                    limits: Arc::new(SharedLimits::new(limits)),
                    objects: Objects::new(objects, config.objects.inline_bytes_max),
                })
            }
        }
    }

    /// Which tasks are claimed and rung for at the moment.
    #[must_use]
    pub fn served(&self) -> Served {
        Served { open: self.pauses.open(), capped: self.caps.known() }
    }

    async fn embedded(config: &Config, data_dir: &Path) -> Result<Self, Unopened> {
        let what = || format!("cannot use the data folder {}", data_dir.display());
        let folder = data_dir.join("objects");
        folder::private(data_dir).map_err(|error| unopened(what())(&error))?;
        folder::private(&folder).map_err(|error| unopened(what())(&error))?;
        let store = SqliteStore::open(&data_dir.join("longhaul.db"))
            .await
            .map_err(|error| unopened(what())(&error))?;
        store.migrate().await.map_err(|error| unopened(what())(&error))?;
        let objects = match config.objects.url.as_deref() {
            Some(url) => object_store_at(url)?,
            None => folder_store(&folder)?,
        };
        let store = Arc::new(store);
        Ok(Self {
            pauses: Pauses::new(store.clone(), Arc::new(config.clone())),
            caps: Caps::new(store.clone(), store.clone(), config.limits.project.concurrent_tasks),
            registry: store.clone(),
            webhooks: store.clone(),
            store,
            lanes: lanes(config),
            queue: Arc::new(MemoryQueue::new(&config.lanes, config.window)),
            events: Arc::new(MemoryEvents::new(config.events_keep)),
            limits: Arc::new(MemoryLimits::default()),
            objects: Objects::new(Some(objects), config.objects.inline_bytes_max),
        })
    }
}

fn lanes(config: &Config) -> Arc<[QueueName]> {
    config.lanes.iter().map(|lane| lane.name.clone()).collect()
}

async fn queue_at(url: &str, config: &Config) -> queue::Result<Arc<dyn Queue>> {
    Ok(match config.transport {
        Transport::Sorted => Arc::new(SortedQueue::open(url, &config.lanes, config.window).await?),
        Transport::Apalis => Arc::new(ApalisQueue::open(url, &config.lanes, config.window).await?),
    })
}

fn folder_store(folder: &Path) -> Result<Arc<dyn ObjectStore>, Unopened> {
    let store = LocalFileSystem::new_with_prefix(folder)
        .map_err(|error| unopened(format!("cannot use the folder {}", folder.display()))(&error))?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// `file:///folder`, or `s3://bucket/prefix` with the usual `AWS_*` environment.
fn object_store_at(url: &str) -> Result<Arc<dyn ObjectStore>, Unopened> {
    if let Some(folder) = url.strip_prefix("file://") {
        // One that is there is shared on purpose, perhaps by several users: its modes are its owner's matter.
        let made = if Path::new(folder).is_dir() { Ok(()) } else { folder::private(Path::new(folder)) };
        made.map_err(|error| unopened(format!("cannot use objects.url {url}"))(&error))?;
        return folder_store(Path::new(folder));
    }
    let store = AmazonS3Builder::from_env()
        .with_url(url)
        .build()
        .map_err(|error| unopened(format!("cannot use objects.url {url}"))(&error))?;
    let prefix =
        url.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).map_or("", |(_, prefix)| prefix);
    Ok(Arc::new(PrefixStore::new(store, prefix)))
}
