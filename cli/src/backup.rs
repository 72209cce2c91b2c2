//! `longhaul backup`: the data of a single process as one file, and the large bodies in a folder beside it.

use crate::{args::BackupArgs, output};
use shared::{
    config::{Database, Settings},
    process::Failure,
    store::SqliteStore,
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Runs it.
pub(crate) async fn run(args: &BackupArgs) -> Result<(), Failure> {
    let settings = Settings::gather(&args.common.flags())?;
    let folder = match settings.database()? {
        Database::Folder(folder) => folder,
        Database::Postgres(_) => {
            let message = "backup copies the data folder of `longhaul serve`: use pg_dump for Postgres";
            return Err(Failure::Role(message.to_owned()));
        }
    };
    let database = folder.join("longhaul.db");
    if !database.is_file() {
        return Err(Failure::Role(format!("there is no database in {}", folder.display())));
    }
    let target = &args.file;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Role(format!("cannot back up {} to {}: {error}", folder.display(), target.display()))
    };
    // Made before anything is in it, so that nobody else can ever read it. A file that is there is not overwritten.
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(target);
    made.map_err(|error| failed(&error))?;
    let copied = copy(&database, target).await;
    if let Err(error) = copied {
        // Half a copy is worse than none.
        fs::remove_file(target).map_err(|error| failed(&error))?;
        return Err(failed(&format!("{error:#}")));
    }
    output::say(&format!("the database is in {}", target.display()));
    if settings.config()?.objects.url.is_some() {
        output::say(
            "large bodies are in the object store that objects.url names: it has a backup of its own",
        );
        return Ok(());
    }
    // After the database: a body is stored before the row that names it is.
    let bodies = beside(target);
    match copy_folder(&folder.join("objects"), &bodies).map_err(|error| failed(&error))? {
        0 => Ok(()),
        count => {
            output::say(&format!("{count} large bodies are in {}", bodies.display()));
            Ok(())
        }
    }
}

async fn copy(database: &Path, target: &Path) -> anyhow::Result<()> {
    let store = SqliteStore::beside(database).await?;
    store.copy_to(target).await?;
    File::open(target)?.sync_all()?;
    Ok(())
}

/// The folder for what is not in the database.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-objects");
    name.into()
}

/// Copies all files below a folder; how many there were. What goes away meanwhile belongs to nobody any more.
fn copy_folder(from: &Path, to: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut count = 0;
    for entry in entries {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            count += copy_folder(&path, &target)?;
            continue;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(to)?;
        match File::open(&path) {
            Ok(mut body) => {
                let mut copy = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&target)?;
                io::copy(&mut body, &mut copy)?;
                copy.sync_all()?;
                count += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}
