//! A small disk is full when it is filled, and only those see it who were started on it.

use harness::{Process, SmallDisk, can_mount, eventually, logs_folder};
use std::{
    path::Path,
    process::{Command, ExitStatus},
    time::Duration,
};

async fn write(disk: &SmallDisk, kilobytes: u32) -> anyhow::Result<ExitStatus> {
    let to = format!("of={}", disk.path().join("file").display());
    let command = |command: &mut Command| {
        command.args(["if=/dev/zero", "bs=1k", &format!("count={kilobytes}"), &to]);
    };
    let mut writer = disk.start("writer", Path::new("dd"), command, &logs_folder()?)?;
    writer.wait_end(harness::PATIENCE).await
}

#[tokio::test]
async fn it_is_full_when_it_is_filled() -> anyhow::Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let disk = SmallDisk::mount(8, &logs_folder()?).await?;
    assert!(write(&disk, 1_024).await?.success());
    assert_eq!(std::fs::metadata(disk.seen().join("file"))?.len(), 1 << 20);
    assert_eq!(std::fs::read_dir(disk.path())?.count(), 0, "nobody else sees it");

    let filled = disk.fill()?;
    assert!((6 << 20..=7 << 20).contains(&filled), "{filled} bytes");
    assert!(!write(&disk, 2_048).await?.success());
    disk.free()?;
    assert!(write(&disk, 2_048).await?.success());

    let folder = disk.path().to_owned();
    drop(disk);
    assert!(!folder.exists(), "nothing is left of it");
    Ok(())
}

#[tokio::test]
async fn a_process_is_awaited_and_started_again() -> anyhow::Result<()> {
    let command = |command: &mut Command| {
        command.args(["-c", "echo started; test -z \"$GO_ON\" || exec sleep 60; exit 3"]);
    };
    let mut process = Process::start("shell", Path::new("sh"), command, &logs_folder()?)?;
    assert_eq!(process.wait_end(harness::PATIENCE).await?.code(), Some(3));
    process.restart(|command| {
        command.env("GO_ON", "yes");
    })?;
    assert!(process.wait_end(Duration::from_millis(100)).await.is_err());
    let twice = async || Ok((process.said()? == "started\nstarted\n").then_some(()));
    eventually("it has said so twice", twice).await?;
    process.must_run()
}
