//! Folders that hold what tasks say: nobody but their owner reads them.

use std::{io, path::Path};

/// Makes the folder, if it is not there, for its owner alone. From then on all files that this process makes are its owner's alone,
/// whatever the umask was: prompts are in the database, in what SQLite puts beside it, and in objects. A folder that is there and wider is
/// warned of, and left as it is: somebody may have wanted it so.
///
/// # Errors
/// It cannot be made.
pub fn private(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::{fs::Mode, process::umask};
        use std::{
            fs::DirBuilder,
            os::unix::fs::{DirBuilderExt, PermissionsExt},
        };
        umask(Mode::RWXG | Mode::RWXO);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mode = folder.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let (folder, mode) = (folder.display(), format!("{mode:o}"));
            tracing::warn!(%folder, mode, "other users of this machine may read this folder, and it holds prompts: run chmod 700 on it");
        }
        Ok(())
    }
    #[cfg(not(unix))]
    std::fs::create_dir_all(folder)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::store::{SqliteStore, Store};
    use std::{fs, os::unix::fs::PermissionsExt};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn nobody_else_reads_what_is_inside() {
        let outer = tempfile::tempdir().expect("a folder");
        rustix::process::umask(rustix::fs::Mode::empty());
        let folder = outer.path().join("data").join("objects");
        private(&folder).expect("a folder");
        assert_eq!((mode(&folder), mode(&outer.path().join("data"))), (0o700, 0o700));
        let store = SqliteStore::open(&folder.join("t.db")).await.expect("a store");
        store.migrate().await.expect("a schema");
        let mut files = 0;
        for entry in fs::read_dir(&folder).expect("a list") {
            let path = entry.expect("an entry").path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            files += 1;
        }
        assert!(files >= 3, "the database, its log, what its readers share, and the lock: {files}");
    }

    #[test]
    fn a_wider_folder_is_left_as_it_is() {
        let outer = tempfile::tempdir().expect("a folder");
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        private(outer.path()).expect("it is there");
        assert_eq!(mode(outer.path()), 0o755);
    }
}
