//! What an app has written where others could read it: rows, keys of Redis.

use crate::{App, Redis};
use anyhow::Context;
use redis::Value;
use sqlx::{AssertSqlSafe, PgPool, Row, SqlitePool, sqlite::SqliteConnectOptions};
use std::collections::BTreeMap;

/// Names of tables and columns, and a query for all values of a column as text, one a row.
const POSTGRES: &str = "select table_name::text, column_name::text from information_schema.columns where table_schema = 'public'";
const SQLITE: &str =
    "select t.name, c.name from sqlite_master t join pragma_table_info(t.name) c where t.type = 'table'";

impl App {
    /// Every value of its database as text, by `table.column`, one a line; bytes in hexadecimal.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn rows(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut rows = BTreeMap::new();
        if let Some(url) = &self.database {
            let pool = PgPool::connect(url).await?;
            for row in sqlx::query(POSTGRES).fetch_all(&pool).await? {
                let (table, column): (String, String) = (row.get(0), row.get(1));
                let values = format!("select string_agg(\"{column}\"::text, chr(10)) from {table}");
                let values: Option<String> =
                    sqlx::query_scalar(AssertSqlSafe(values)).fetch_one(&pool).await?;
                rows.insert(format!("{table}.{column}"), values.unwrap_or_default());
            }
        } else {
            let file = SqliteConnectOptions::new().filename(self.data().join("longhaul.db")).read_only(true);
            let pool = SqlitePool::connect_with(file).await?;
            for row in sqlx::query(SQLITE).fetch_all(&pool).await? {
                let (table, column): (String, String) = (row.get(0), row.get(1));
                let text = format!(
                    "case typeof(\"{column}\") when 'blob' then hex(\"{column}\") else cast(\"{column}\" as text) end"
                );
                let values = format!("select group_concat({text}, char(10)) from {table}");
                let values: Option<String> =
                    sqlx::query_scalar(AssertSqlSafe(values)).fetch_one(&pool).await?;
                rows.insert(format!("{table}.{column}"), values.unwrap_or_default());
            }
        }
        anyhow::ensure!(rows.len() > 50, "the database has no more than {} columns", rows.len());
        Ok(rows)
    }
}

impl Redis {
    /// Everything it holds, by key, as text.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn holds(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut connection = self.connection().await?;
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
        let mut all = BTreeMap::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await?;
            let (command, range): (_, &[&str]) = match kind.as_str() {
                "string" => ("GET", &[]),
                "hash" => ("HGETALL", &[]),
                "set" => ("SMEMBERS", &[]),
                "list" => ("LRANGE", &["0", "-1"]),
                "zset" => ("ZRANGE", &["0", "-1"]),
                "stream" => ("XRANGE", &["-", "+"]),
                // It went away between the two questions.
                "none" => continue,
                other => anyhow::bail!("this does not know how to read a {other} of Redis: teach it"),
            };
            let mut read = redis::cmd(command);
            let value: Value = read.arg(&key).arg(range).query_async(&mut connection).await.context(kind)?;
            let key = String::from_utf8_lossy(&key).into_owned();
            let text = format!("{key} {value:?}");
            all.insert(key, text);
        }
        Ok(all)
    }
}
