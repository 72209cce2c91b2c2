//! `longhaul serve`: API, worker and, where no upstream is configured, a simulated model in one process.

use crate::banner;
use shared::{
    backends::Backends,
    config::{self, Config, ENDPOINTS, Flags, Mode, Secret, Upstream},
    identity::ApiKey,
    process::{self, Failure},
    rooms::Rooms,
};
use simulator::Behaviour;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The name of the upstream that stands in for a model.
const SIMULATOR: &str = "simulator";

/// Everything opened, nothing running yet.
pub(crate) struct House {
    /// The configuration, the simulated upstream and the key included.
    pub(crate) config: Arc<Config>,
    /// Whether answers are made up.
    pub(crate) is_simulated: bool,
    /// Set when the key was made just now: to be shown this once.
    pub(crate) fresh_key: Option<Secret>,
    /// The file that the key is kept in, if it is one of ours.
    pub(crate) kept_key: Option<PathBuf>,
    /// Where the API listens.
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    backends: Backends,
    simulator: Option<(TcpListener, Behaviour)>,
    /// Held as long as the process lives: two processes on one folder would not hear of each other's tasks.
    _lock: Option<File>,
}

/// `longhaul serve`.
pub(crate) async fn run(flags: &Flags, behaviour: Behaviour, stop: CancellationToken) -> Result<(), Failure> {
    let config = config::load(flags)?;
    let listener = process::listen(config.api.listen).await?;
    let house = House::open(config, listener, behaviour).await?;
    banner::show(&house);
    house.run(stop).await
}

impl House {
    /// Opens everything; what cannot be opened is told before anything runs.
    pub(crate) async fn open(
        mut config: Config,
        listener: TcpListener,
        behaviour: Behaviour,
    ) -> Result<Self, Failure> {
        let address = listener.local_addr().map_err(|error| Failure::Listen(config.api.listen, error))?;
        let lock = match &config.mode {
            Mode::Embedded { data_dir } => Some(lock(data_dir)?),
            Mode::Distributed { .. } => None,
        };
        let backends = Backends::open(&config).await?;
        let (fresh_key, kept_key) = ensure_key(&mut config)?;
        let is_simulated = config.upstreams.is_empty();
        let simulator = if is_simulated { Some(simulated(&mut config, behaviour).await?) } else { None };
        let config = Arc::new(config);
        Ok(Self {
            config,
            is_simulated,
            fresh_key,
            kept_key,
            address,
            listener,
            backends,
            simulator,
            _lock: lock,
        })
    }

    /// Runs until `stop`: then the API stops accepting, the worker ends its tasks, the model leaves last.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        let Self { config, listener, backends, simulator, _lock, .. } = self;
        let store = backends.store.clone();
        let mut rooms = Rooms::new();
        rooms.open("api", |stop| api::serve(listener, backends.clone(), config.clone(), stop));
        rooms.open("worker", |stop| worker::run(backends, config, stop));
        if let Some((listener, behaviour)) = simulator {
            rooms.open(SIMULATOR, |stop| simulator::serve(listener, behaviour, stop));
        }
        rooms.run(stop).await.map_err(Failure::Role)?;
        // Who copies the file now has everything, without the log beside it.
        store.close().await.map_err(|error| Failure::Role(format!("the database did not close: {error}")))
    }

    /// Where a browser on this machine finds the API.
    pub(crate) fn url(&self) -> String {
        let ip = self.address.ip();
        let ip = if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }
}

async fn simulated(config: &mut Config, behaviour: Behaviour) -> Result<(TcpListener, Behaviour), Failure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = process::listen(any).await?;
    let address = listener.local_addr().map_err(|error| Failure::Listen(any, error))?;
    config.upstreams.push(Upstream {
        name: SIMULATOR.to_owned(),
        url: format!("http://{address}"),
        key: None,
        endpoints: ENDPOINTS.map(str::to_owned).to_vec(),
        any_model: false,
    });
    Ok((listener, behaviour))
}

fn lock(data_dir: &Path) -> Result<File, Failure> {
    let cannot = |error: io::Error| {
        Failure::Role(format!("cannot use the data folder {}: {error}", data_dir.display()))
    };
    shared::folder::private(data_dir).map_err(cannot)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join("lock"))
        .map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::Role(format!("the data folder {} is in use by another process", data_dir.display())))
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

/// Makes sure that strangers need a key: the one of an earlier start, or one made now, which is returned to be shown. The file that it
/// is kept in is returned too.
fn ensure_key(config: &mut Config) -> Result<(Option<Secret>, Option<PathBuf>), Failure> {
    if config.api.listen.ip().is_loopback() || config.api.key.is_some() {
        return Ok((None, None));
    }
    let Mode::Embedded { data_dir } = &config.mode else { return Err(Failure::NoKey(config.api.listen)) };
    let path = data_dir.join("api-key");
    let cannot =
        |error: io::Error| Failure::Role(format!("cannot keep the API key in {}: {error}", path.display()));
    match std::fs::read_to_string(&path) {
        Ok(key) if key.trim().is_empty() => Err(cannot(io::Error::other("the file is empty: remove it"))),
        Ok(key) => {
            config.api.key = Some(Secret::new(key.trim()));
            Ok((None, Some(path)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = Secret::from(ApiKey::generate());
            keep(&path, &key).map_err(cannot)?;
            config.api.key = Some(key.clone());
            Ok((Some(key), Some(path)))
        }
        Err(error) => Err(cannot(error)),
    }
}

/// Writes the key where only the owner can read it.
fn keep(path: &Path, key: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    writeln!(file, "{}", key.expose())?;
    file.sync_all()
}
