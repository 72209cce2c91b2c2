//! Each fault of the proxy, with a server that echoes.

use harness::{Fault, FaultProxy, eventually};
use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// Long enough for anything that comes to have come.
const SILENCE: Duration = Duration::from_millis(100);

/// Echoes what it hears and keeps it; hangs up at `bye`.
struct Echo {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    _serving: JoinSet<()>,
}

impl Echo {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, heard) = (listener.local_addr()?, Arc::new(Mutex::new(Vec::new())));
        let (mut serving, ears) = (JoinSet::new(), heard.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(echo(connection, ears.clone()));
            }
        });
        Ok(Self { address, heard, _serving: serving })
    }

    fn heard(&self, what: &str) -> bool {
        self.heard
            .lock()
            .expect("no test panics with it")
            .windows(what.len())
            .any(|window| window == what.as_bytes())
    }
}

async fn echo(mut connection: TcpStream, ears: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = connection.read(&mut buffer).await {
        if buffer[..count].ends_with(b"bye") {
            return;
        }
        if count < 1_024 {
            ears.lock().expect("no test panics with it").extend_from_slice(&buffer[..count]);
        }
        if connection.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn pair() -> anyhow::Result<(Echo, FaultProxy)> {
    let echo = Echo::start().await?;
    let proxy = FaultProxy::start(echo.address).await?;
    Ok((echo, proxy))
}

/// A connection that has been answered once.
async fn known(proxy: &FaultProxy) -> anyhow::Result<TcpStream> {
    let mut client = TcpStream::connect(proxy.address()).await?;
    ask(&mut client, "hello").await?;
    Ok(client)
}

async fn ask(client: &mut TcpStream, words: &str) -> anyhow::Result<()> {
    client.write_all(words.as_bytes()).await?;
    hear(client, words).await
}

async fn hear(client: &mut TcpStream, words: &str) -> anyhow::Result<()> {
    let mut answer = vec![0; words.len()];
    timeout(harness::PATIENCE, client.read_exact(&mut answer)).await??;
    assert_eq!(String::from_utf8(answer)?, words);
    Ok(())
}

async fn is_silent(client: &mut TcpStream) -> bool {
    timeout(SILENCE, client.read_u8()).await.is_err()
}

/// How the connection ended: `None` by a goodbye.
async fn end(client: &mut TcpStream) -> anyhow::Result<Option<ErrorKind>> {
    let read = timeout(harness::PATIENCE, client.read_u8()).await?;
    let kind = read.expect_err("no more bytes come").kind();
    Ok((kind != ErrorKind::UnexpectedEof).then_some(kind))
}

const RESET: Option<ErrorKind> = Some(ErrorKind::ConnectionReset);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_pass_and_are_cut() -> anyhow::Result<()> {
    let (_echo, proxy) = pair().await?;
    let mut clients = Vec::new();
    for n in 0..1_000 {
        let mut client = TcpStream::connect(proxy.address()).await?;
        client.write_all(format!("{n:>8}").as_bytes()).await?;
        clients.push(client);
    }
    for (n, client) in clients.iter_mut().enumerate() {
        hear(client, &format!("{n:>8}")).await?;
    }
    assert_eq!((proxy.connections(), proxy.open()), (1_000, 1_000));
    proxy.cut().await?;
    assert_eq!(proxy.open(), 0);
    for client in &mut clients {
        assert_eq!(end(client).await?, RESET);
    }
    let mut client = known(&proxy).await?;
    client.shutdown().await?;
    assert_eq!(end(&mut client).await?, None, "a goodbye is passed on, and answered");
    eventually("the connection is closed", async || Ok((proxy.open() == 0).then_some(()))).await
}

#[tokio::test]
async fn latency_delays_and_holds_nothing_up() -> anyhow::Result<()> {
    let (_echo, proxy) = pair().await?;
    let mut client = known(&proxy).await?;
    let late = Duration::from_millis(100);
    proxy.set(Fault::Latency(late)).await?;
    let started = Instant::now();
    for n in 0..10 {
        client.write_all(format!("word {n};").as_bytes()).await?;
        tokio::task::yield_now().await;
    }
    for n in 0..10 {
        hear(&mut client, &format!("word {n};")).await?;
    }
    let once = started.elapsed();
    assert!(once >= late * 2 && once < late * 10, "{once:?}, once each way for all of them together");

    let (mut from, mut to) = client.split();
    let (many, mut back) = (vec![7; 8 << 20], vec![0; 8 << 20]);
    let (written, read) = tokio::join!(to.write_all(&many), from.read_exact(&mut back));
    written?;
    read?;
    assert!(started.elapsed() < Duration::from_secs(5), "8 MiB take as long as one byte, nearly");
    Ok(())
}

#[tokio::test]
async fn a_blackhole_is_silent_and_gives_back_what_waited() -> anyhow::Result<()> {
    let (echo, proxy) = pair().await?;
    let mut old = known(&proxy).await?;
    proxy.set(Fault::Blackhole).await?;
    let mut new = TcpStream::connect(proxy.address()).await?;
    for (client, words) in [(&mut old, "from the old"), (&mut new, "from the new")] {
        client.write_all(words.as_bytes()).await?;
        assert!(is_silent(client).await && !echo.heard(words));
    }
    proxy.set(Fault::Pass).await?;
    hear(&mut old, "from the old").await?;
    hear(&mut new, "from the new").await?;
    ask(&mut old, "and on").await
}

#[tokio::test]
async fn dropped_replies_leave_no_hole() -> anyhow::Result<()> {
    let (echo, proxy) = pair().await?;
    let (mut torn, mut whole) = (known(&proxy).await?, known(&proxy).await?);
    proxy.set(Fault::DropReplies).await?;
    torn.write_all(b"are you there").await?;
    eventually("the server has heard", async || Ok(echo.heard("are you there").then_some(()))).await?;
    assert!(is_silent(&mut torn).await);
    proxy.set(Fault::Pass).await?;
    assert_eq!(end(&mut torn).await?, RESET);
    ask(&mut whole, "nothing of mine was lost").await
}

#[tokio::test]
async fn a_half_closed_connection_hides_the_goodbye() -> anyhow::Result<()> {
    let (_echo, proxy) = pair().await?;
    let (mut left, mut talks, mut other) = (known(&proxy).await?, known(&proxy).await?, known(&proxy).await?);
    proxy.set(Fault::HalfClose).await?;
    ask(&mut other, "others go on").await?;
    for client in [&mut left, &mut talks] {
        client.write_all(b"bye").await?;
        assert!(is_silent(client).await);
    }
    // The server has no such connection any more: this is for nobody, and nobody says so.
    for _ in 0..3 {
        talks.write_all(b"hello?").await?;
        assert!(is_silent(&mut talks).await);
    }
    proxy.set(Fault::Pass).await?;
    assert_eq!(end(&mut left).await?, None);
    assert_eq!(end(&mut talks).await?, RESET);
    ask(&mut other, "and on").await
}

#[tokio::test]
async fn a_reset_comes_after_so_many_bytes() -> anyhow::Result<()> {
    let (echo, proxy) = pair().await?;
    let mut old = known(&proxy).await?;
    proxy.set(Fault::ResetAfter { bytes: 8 }).await?;
    let mut new = TcpStream::connect(proxy.address()).await?;
    for client in [&mut old, &mut new] {
        ask(client, "five ").await?;
        client.write_all(b"six more").await?;
        hear(client, "six").await?;
        assert_eq!(end(client).await?, RESET);
    }
    proxy.set(Fault::ResetAfter { bytes: 0 }).await?;
    let mut none = TcpStream::connect(proxy.address()).await?;
    assert!(is_silent(&mut none).await, "it waits for the first byte");
    none.write_all(b"the first").await?;
    assert_eq!(end(&mut none).await?, RESET);
    assert!(echo.heard("the first"));
    Ok(())
}

#[tokio::test]
async fn a_refusing_port_comes_back() -> anyhow::Result<()> {
    let (_echo, proxy) = pair().await?;
    for _ in 0..10 {
        let mut client = known(&proxy).await?;
        proxy.set(Fault::Refuse).await?;
        assert_eq!(end(&mut client).await?, RESET);
        let refused = TcpStream::connect(proxy.address()).await.map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
        proxy.set(Fault::Pass).await?;
    }
    known(&proxy).await.map(drop)
}

#[tokio::test]
async fn flapping_resets_and_comes_back() -> anyhow::Result<()> {
    let (_echo, proxy) = pair().await?;
    let phase = Duration::from_millis(50);
    proxy.set(Fault::Flap { up: phase, down: phase }).await?;
    for _ in 0..3 {
        let up = async || Ok(known(&proxy).await.ok());
        let mut client = eventually("it is up", up).await?;
        assert_eq!(end(&mut client).await?, RESET);
        let refused = async || Ok(TcpStream::connect(proxy.address()).await.err());
        eventually("it is down", refused).await?;
    }
    proxy.set(Fault::Pass).await?;
    let mut client = known(&proxy).await?;
    assert!(timeout(phase * 4, client.read_u8()).await.is_err(), "it stays up");
    ask(&mut client, "and on").await
}

#[tokio::test]
async fn one_reply_is_lost() -> anyhow::Result<()> {
    let (echo, proxy) = pair().await?;
    let (mut one, mut two) = (known(&proxy).await?, known(&proxy).await?);
    proxy.lose_next_reply();
    assert!(is_silent(&mut one).await && proxy.lost() == 0, "nobody has asked yet");
    one.write_all(b"please").await?;
    assert_eq!(end(&mut one).await?, RESET);
    assert!(echo.heard("please") && proxy.lost() == 1);
    ask(&mut two, "it happens once").await?;

    proxy.lose_next_reply_to(|words| words.starts_with(b"commit"));
    ask(&mut two, "begin").await?;
    two.write_all(b"commit").await?;
    assert_eq!(end(&mut two).await?, RESET);
    assert!(echo.heard("commit") && proxy.lost() == 2);
    Ok(())
}
