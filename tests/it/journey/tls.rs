//! TLS: the API speaks it with the certificate that lies there, and with a new one soon after it has been put there.

use harness::{Process, free_address, logs_folder, program, within};
use std::{path::Path, time::Duration};

/// A new certificate for this machine, in the files; a client that trusts it alone.
fn certify(folder: &Path) -> anyhow::Result<reqwest::Client> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
    std::fs::write(folder.join("cert.pem"), made.cert.pem())?;
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes())?;
    Ok(reqwest::Client::builder().no_proxy().tls_certs_only([root]).pool_max_idle_per_host(0).build()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_again() -> anyhow::Result<()> {
    let (folder, address) = (tempfile::tempdir()?, free_address()?);
    let first = certify(folder.path())?;
    let start = |command: &mut std::process::Command| {
        command
            .env_clear()
            .args(["serve", "--listen", &address.to_string(), "--data-dir"])
            .arg(folder.path());
        command.env("LONGHAUL_API__TLS_CERT", folder.path().join("cert.pem"));
        command.env("LONGHAUL_API__TLS_KEY", folder.path().join("key.pem"));
    };
    let process = Process::start("serve", &program("longhaul")?, start, &logs_folder()?)?;
    let url = format!("https://localhost:{}/v1/tasks", address.port());
    let answers = async |client: &reqwest::Client| {
        let reply = client.get(&url).send().await.ok();
        Ok(reply.filter(|reply| reply.status() == 200))
    };
    let reply = within(Duration::from_secs(20), "it answers", async || answers(&first).await).await?;
    assert_eq!(reply.version(), reqwest::Version::HTTP_2);
    assert!(reply.headers().contains_key("strict-transport-security"));
    let plain = reqwest::Client::builder().no_proxy().build()?;
    assert!(plain.get(url.replace("https", "http")).send().await.is_err(), "plain HTTP has no answer");
    assert!(plain.get(&url).send().await.is_err(), "who does not trust it is not served");

    let second = certify(folder.path())?;
    within(Duration::from_secs(15), "the new one is used", async || answers(&second).await).await?;
    assert!(answers(&first).await?.is_none(), "and the old one is not");
    std::fs::write(folder.path().join("cert.pem"), "nothing")?;
    within(Duration::from_secs(15), "it has been looked at", async || {
        Ok(process.said()?.contains("the certificate before stays in use").then_some(()))
    })
    .await?;
    assert!(answers(&second).await?.is_some(), "a broken one is no reason to stop");
    Ok(())
}
