//! A DNS server of the test's own. Programs are started with a view of the file system in which nobody else is asked for names:
//! see [`Builder::names`](crate::Builder::names), which needs [`can_mount`](crate::can_mount).

use anyhow::Context;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tempfile::TempDir;
use tokio::{net::UdpSocket, task::JoinSet};

const PORT: u16 = 53;
const A: u16 = 1;
const AAAA: u16 = 28;

/// What a name leads to, in turn, and how often it was asked for by each type.
#[derive(Debug, Default)]
struct Entry {
    turns: Vec<Vec<IpAddr>>,
    asked: BTreeMap<u16, usize>,
}

type Entries = Arc<Mutex<BTreeMap<String, Entry>>>;

/// The server. Dropping it closes it.
#[derive(Debug)]
pub struct Names {
    entries: Entries,
    folder: TempDir,
    _serving: JoinSet<()>,
}

impl Names {
    /// Starts one that knows no name.
    ///
    /// # Errors
    /// It may not listen where name servers do: only root may.
    pub async fn start() -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        // Other tests, and other runs of them, have addresses of their own.
        let nth = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(64));
        let [_, _, third, fourth] = nth.to_be_bytes();
        let address = Ipv4Addr::new(127, 53, third, fourth);
        let socket = UdpSocket::bind((address, PORT)).await.with_context(|| format!("{address}:{PORT}"))?;
        let folder = tempfile::tempdir()?;
        std::fs::write(
            folder.path().join("resolv.conf"),
            format!("nameserver {address}\noptions timeout:2\n"),
        )?;
        let (entries, mut serving) = (Entries::default(), JoinSet::new());
        serving.spawn(serve(socket, entries.clone()));
        Ok(Self { entries, folder, _serving: serving })
    }

    /// What a name leads to: the first look-up gets the first of `turns`, the next one the next, and after the last the first again.
    pub fn lead(&self, name: &str, turns: &[&[IpAddr]]) {
        let turns = turns.iter().map(|turn| turn.to_vec()).collect();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(name.to_owned(), Entry { turns, asked: BTreeMap::new() });
    }

    /// How often a name was looked up.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).and_then(|entry| entry.asked.get(&A)).copied().unwrap_or_default()
    }

    /// The file that names this server.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.folder.path().join("resolv.conf")
    }
}

/// How a program is started so that it asks no other server: `unshare` with these arguments, before the program's own.
pub(crate) fn view(resolv_conf: &Path, program: &Path) -> Vec<PathBuf> {
    let script = r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#;
    let words = ["--mount", "--propagation", "private", "sh", "-c", script];
    words.iter().map(PathBuf::from).chain([resolv_conf.to_owned(), program.to_owned()]).collect()
}

async fn serve(socket: UdpSocket, entries: Entries) {
    let mut buffer = [0; 1_500];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        // What is no question gets no answer.
        if let Some(answer) = answer(&buffer[..length], &entries) {
            socket.send_to(&answer, peer).await.ok();
        }
    }
}

/// The answer to a question for addresses. A name that is not known has none.
fn answer(asked: &[u8], entries: &Entries) -> Option<Vec<u8>> {
    let (mut name, mut at) = (Vec::new(), 12);
    while let Some(length) = asked.get(at).copied().filter(|length| *length > 0) {
        let label = asked.get(at + 1..=at + usize::from(length))?;
        name.push(std::str::from_utf8(label).ok()?.to_ascii_lowercase());
        at += 1 + label.len();
    }
    let kind = u16::from_be_bytes(*asked.get(at + 1..)?.first_chunk()?);
    let question = asked.get(12..at + 5)?;
    let addresses = next(&mut entries.lock().unwrap_or_else(PoisonError::into_inner), &name.join("."), kind);
    let records: Vec<Vec<u8>> = addresses.into_iter().filter_map(|address| record(address, kind)).collect();
    let count = u16::try_from(records.len()).ok()?.to_be_bytes();
    // Id; an answer without a fault; one question, so many answers.
    let head = [&asked[..2], &[0x81, 0x80, 0, 1], &count, &[0; 4]].concat();
    Some([head, question.to_vec(), records.concat()].concat())
}

fn next(entries: &mut BTreeMap<String, Entry>, name: &str, kind: u16) -> Vec<IpAddr> {
    let Some(entry) = entries.get_mut(name) else { return Vec::new() };
    let turn = entry.asked.entry(kind).or_default();
    *turn += 1;
    entry.turns.get((*turn - 1) % entry.turns.len().max(1)).cloned().unwrap_or_default()
}

/// An address as a record that nobody may keep; `None` if it is of the other kind.
fn record(address: IpAddr, kind: u16) -> Option<Vec<u8>> {
    let bytes = match (address, kind) {
        (IpAddr::V4(address), A) => address.octets().to_vec(),
        (IpAddr::V6(address), AAAA) => address.octets().to_vec(),
        _ => return None,
    };
    let length = u16::try_from(bytes.len()).ok()?.to_be_bytes();
    Some([&[0xc0, 12], kind.to_be_bytes().as_slice(), &[0, 1], &[0; 4], &length, &bytes].concat())
}
