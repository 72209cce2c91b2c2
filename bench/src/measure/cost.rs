//! What a stretch of work costs: processor time by class, WAL, memory.

use super::Figures;
use crate::{
    gauge::{
        rows::Written,
        tree::{self, Classes},
    },
    system::Running,
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// A stretch of work that has begun.
pub(super) struct Cost {
    classes: Classes,
    cpu: BTreeMap<&'static str, f64>,
    idle: f64,
    written: Option<Written>,
    began: Instant,
}

impl Cost {
    /// Begins to count.
    pub(super) async fn begin(running: &Running) -> anyhow::Result<Self> {
        let classes = running.classes().await?;
        let (cpu, written) = (tree::cpu_s(&classes), running.rows.written().await?);
        Ok(Self { classes, cpu, idle: tree::idle_s(), written, began: Instant::now() })
    }

    /// Adds what `tasks` tasks have cost since: `cpu_us_<class>` and `cpu_us` (all but the generator and the model), `wal_bytes`,
    /// each per task, `pss_mb_<class>`, `hot_share` and `idle_cores`.
    pub(super) async fn end(
        self,
        running: &Running,
        tasks: usize,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let (cpu, seconds) = (tree::cpu_s(&self.classes), self.began.elapsed().as_secs_f64());
        figures.insert("idle_cores".into(), (tree::idle_s() - self.idle) / seconds);
        let mut ours = 0.0;
        for (class, after) in cpu {
            let us = (after - self.cpu[class]) / tasks as f64 * 1e6;
            figures.insert(format!("cpu_us_{class}"), us);
            ours += if matches!(class, "generator" | "model") { 0.0 } else { us };
        }
        figures.insert("cpu_us".into(), ours);
        for (class, mb) in tree::pss_mb(&self.classes) {
            figures.insert(format!("pss_mb_{class}"), mb);
        }
        if let Some(before) = self.written {
            // Backends report their counts up to a second late.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            if let Some(after) = running.rows.written().await? {
                figures.insert("wal_bytes".into(), (after.wal - before.wal) / tasks as f64);
                if after.updates > before.updates {
                    figures.insert(
                        "hot_share".into(),
                        (after.hot - before.hot) / (after.updates - before.updates),
                    );
                }
            }
        }
        Ok(())
    }

    /// Adds what a thousand of `count` messages have cost since: `<prefix>_cpu_us_per_1000_<class>` and the sum without generator
    /// and model; and `<prefix>_idle_cores`.
    pub(super) async fn end_per_1000(
        self,
        running: &Running,
        count: usize,
        prefix: &str,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let mut each = Figures::new();
        self.end(running, count, &mut each).await?;
        for (name, value) in each {
            if let Some(class) = name.strip_prefix("cpu_us") {
                figures.insert(format!("{prefix}_cpu_us_per_1000{class}"), value * 1e3);
            } else if name == "idle_cores" {
                figures.insert(format!("{prefix}_idle_cores"), value);
            }
        }
        Ok(())
    }
}
