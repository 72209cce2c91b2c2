//! One Redis: its address, one connection that all callers share, and a deadline on everything.
//!
//! The shared connection is opened by the first caller who wants it and given up at its first break or silence, so a Redis
//! that comes back, here or at another address of the same name, is found by the next call. No call takes longer than
//! [`CONNECT`] + [`ANSWER`], whether Redis is gone, frozen or behind a dead route.

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection, PubSub},
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Time to open a connection, the wait for another caller who is opening it included.
const CONNECT: Duration = Duration::from_secs(1);

/// Time for an answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// Oldest version that knows `BZMPOP`.
const MAJOR_MIN: u32 = 7;

/// The way to one Redis. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

struct Inner {
    client: Client,
    shared: Mutex<Option<Shared>>,
    // Callers queue here while one of them connects; the number of connections opened so far.
    opening: tokio::sync::Mutex<u64>,
}

#[derive(Clone)]
struct Shared {
    number: u64,
    connection: MultiplexedConnection,
}

/// Whether the same call may work later: nobody answered, or Redis is still reading its files.
fn is_away(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.code() == Some("LOADING")
}

/// Says why Redis is away, if it is.
pub(crate) async fn absence(url: &str) -> Option<RedisError> {
    let link = Link::to(url).ok()?;
    link.fit().await.err().filter(is_away)
}

/// The policy by which this Redis throws keys away when its memory is full, if it does.
pub(crate) async fn eviction(url: &str) -> Option<String> {
    let mut link = Link::to(url).ok()?;
    // Some users may not ask: then nothing is known of it.
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut link).await.ok()?;
    let policy = info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?.trim();
    (policy != "noeviction").then(|| policy.to_owned())
}

/// Awaits `what` no longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    what: impl Future<Output = RedisResult<T>> + Send,
) -> RedisResult<T> {
    tokio::time::timeout(limit, what).await.unwrap_or_else(|_| {
        let silence = format!("no answer from Redis within {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, silence).into())
    })
}

impl Link {
    /// Connects, and checks that this Redis is new enough. One that is away is found by a later call, as one that goes away is.
    ///
    /// # Errors
    /// The URL is none, or Redis answers and is not fit.
    pub(crate) async fn open(url: &str) -> RedisResult<Self> {
        let link = Self::to(url)?;
        match link.fit().await {
            Err(error) if is_away(&error) => Ok(link),
            fit => fit.map(|()| link),
        }
    }

    /// The way to this Redis, without a look at it.
    fn to(url: &str) -> RedisResult<Self> {
        let client = Client::open(url)?;
        Ok(Self(Arc::new(Inner { client, shared: Mutex::default(), opening: tokio::sync::Mutex::default() })))
    }

    /// Whether Redis answers and is new enough.
    async fn fit(&self) -> RedisResult<()> {
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut self.clone()).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
        let major = version.split('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        if major < MAJOR_MIN {
            let found = format!("version {MAJOR_MIN} or newer is needed, this is {version:?}");
            return Err((ErrorKind::InvalidClientConfig, "Redis is too old", found).into());
        }
        Ok(())
    }

    /// A connection for one caller alone, for commands that block. Its answers have no deadline.
    pub(crate) async fn dedicated(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        within(CONNECT, self.0.client.get_multiplexed_async_connection_with_config(&config)).await
    }

    /// A connection that listens.
    pub(crate) async fn listener(&self) -> RedisResult<PubSub> {
        within(CONNECT, self.0.client.get_async_pubsub()).await
    }

    fn current(&self) -> Option<Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn shared(&self) -> RedisResult<Shared> {
        if let Some(shared) = self.current() {
            return Ok(shared);
        }
        within(CONNECT, async {
            let mut number = self.0.opening.lock().await;
            if let Some(shared) = self.current() {
                return Ok(shared);
            }
            let connection = self.dedicated().await?;
            *number += 1;
            let shared = Shared { number: *number, connection };
            *self.0.shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(shared.clone());
            Ok(shared)
        })
        .await
    }

    /// Gives the connection up if its answer shows that it is no good, unless another caller has replaced it already.
    fn judge<T>(&self, number: u64, answer: RedisResult<T>) -> RedisResult<T> {
        let bad = |error: &RedisError| error.is_io_error() || error.is_unrecoverable_error();
        if answer.as_ref().is_err_and(bad) {
            let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.take_if(|shared| shared.number == number);
        }
        answer
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let Shared { number, mut connection } = self.shared().await?;
            self.judge(number, within(ANSWER, connection.send_packed_command(cmd)).await)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let Shared { number, mut connection } = self.shared().await?;
            self.judge(number, within(ANSWER, connection.send_packed_commands(cmd, offset, count)).await)
        })
    }

    fn get_db(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }
}
