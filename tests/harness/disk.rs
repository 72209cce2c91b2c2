//! A disk so small that a test can fill it.
//!
//! It is a tmpfs in a mount namespace of its own: nobody outside sees it, and nothing is left of it. A process that does nothing
//! else keeps the namespace, so that what is on the disk survives the programs that use it; the test reaches it through that
//! process's `/proc/<pid>/root`.

use crate::{Process, eventually};
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};
use tempfile::TempDir;

/// Whether this machine lets the tests mount: they must be root. Without it they are skipped with a line on stderr, in CI they
/// fail.
///
/// # Panics
/// In CI, if it does not.
#[must_use]
pub fn can_mount() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    let can = *CAN.get_or_init(|| {
        let script = "mount -t tmpfs -o size=1m none /mnt";
        let mut try_it = Command::new("unshare");
        try_it.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        try_it.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    crate::services::found_or_skipped(can, "no right to mount", "run the tests as root")
}

/// A small disk. Dropping it forgets what is on it.
#[derive(Debug)]
pub struct SmallDisk {
    // Dropped first: the folder can go once nobody keeps the mount.
    keeper: Process,
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts a disk of this many megabytes.
    ///
    /// # Errors
    /// It cannot be mounted: see [`can_mount`].
    pub async fn mount(megabytes: u32, logs: &Path) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let folder = tempfile::tempdir_in(std::env::temp_dir().canonicalize()?)?;
        // Not every program that uses it is root.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))?;
        let options = format!("size={megabytes}m,mode=755");
        let script = r#"mount -t tmpfs -o "$1" none "$2" && echo mounted && exec sleep infinity"#;
        let command = |command: &mut Command| {
            command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]);
            command.args(["sh", "-c", script, "sh", &options]).arg(folder.path());
        };
        let name = format!("disk-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut keeper = Process::start(&name, Path::new("setpriv"), command, logs)?;
        eventually("the disk is mounted", async || {
            keeper.must_run()?;
            Ok(keeper.said()?.contains("mounted").then_some(()))
        })
        .await?;
        Ok(Self { keeper, folder })
    }

    /// Where it is for the programs that it [starts](Self::start).
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where it is for the test.
    #[must_use]
    pub fn seen(&self) -> PathBuf {
        let inside = self.path().strip_prefix("/").unwrap_or(self.path());
        Path::new("/proc").join(self.keeper.pid().to_string()).join("root").join(inside)
    }

    /// Starts a program that sees the disk; otherwise as [`Process::start`].
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(
        &self,
        name: &str,
        program: &Path,
        command: impl FnOnce(&mut Command),
        logs: &Path,
    ) -> anyhow::Result<Process> {
        let enter = |enter: &mut Command| {
            enter.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.pid())).arg("--").arg(program);
            command(enter);
        };
        Process::start(name, Path::new("nsenter"), enter, logs)
    }

    /// Fills it to the last block; gives the bytes that this took.
    ///
    /// # Errors
    /// It is gone.
    pub fn fill(&self) -> anyhow::Result<u64> {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.filler())?;
        let mut written = 0;
        for block in [1 << 20, 4_096] {
            written += fill(&mut filler, &vec![0; block])?;
        }
        Ok(written)
    }

    /// Gives back what [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.seen().join("filler")
    }
}

/// Writes blocks until there is no space for one.
fn fill(file: &mut File, block: &[u8]) -> anyhow::Result<u64> {
    let mut written = 0;
    loop {
        match file.write(block) {
            Ok(count) => written += count as u64,
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(written),
            Err(error) => return Err(error.into()),
        }
    }
}
