//! What somebody waits for goes on before it is on the disk, and is promised after it.
//!
//! The server's log of writes is in the order of commits: a commit that waits for the disk takes all those before it along. So a
//! statement that commits [`early!`] is followed by one that waits: [`flush`], or one that has [`kept!`] among its columns.

use crate::store::Result;
use sqlx::PgConnection;

/// A column of a statement that writes, and with it the commit does not wait for the disk if that parameter is true.
macro_rules! early {
    ($when:literal) => {
        concat!(" (select set_config('synchronous_commit', 'off', true) where ", $when, "::bool) as early ")
    };
}
pub(super) use early;

/// A column of a statement that reads: once it has answered, what it has seen survives a crash of the server. Reading alone waits
/// for no disk; a message in the log of writes does, which nobody has to listen to.
macro_rules! kept {
    () => {
        " (select pg_logical_emit_message(true, 'longhaul', '')) is not null as kept "
    };
}
pub(super) use kept;

/// Waits until what this connection has seen survives a crash of the server.
pub(super) async fn flush(db: &mut PgConnection) -> Result<()> {
    sqlx::query(concat!("select", kept!())).execute(db).await?;
    Ok(())
}
