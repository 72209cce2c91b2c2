//! Names that lead somewhere else every time they are looked up: what is called is what was judged.

use super::both_modes;
use anyhow::Context;
use harness::{App, Client, Mode, Names, Receiver, can_mount, within};
use serde_json::{Value, json};
use shared::clock::UnixMs;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    time::Duration,
};

both_modes!(a_name_that_turns_leads_into_no_trap);

/// Look-ups of each name.
const TURNS: usize = 7;
const REFUSED: &str = "the URL is not called: its address is not public";

/// The network that the operator has named stands for what is public; this machine itself is the trap.
async fn a_name_that_turns_leads_into_no_trap(mode: Mode) -> anyhow::Result<()> {
    if !can_mount() {
        return Ok(());
    }
    let admitted = Ipv4Addr::new(127, 0, 1, 1);
    let receiver = Receiver::at(admitted.into(), [500]).await?;
    let port = receiver.port()?;
    let traps =
        [TcpListener::bind((Ipv4Addr::LOCALHOST, port))?, TcpListener::bind((Ipv6Addr::LOCALHOST, port))?];
    let names = Names::start().await?;
    let app = App::with(mode)
        .names(&names)
        .env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.1.0/24")
        .start()
        .await?;
    let good = IpAddr::from(admitted);
    let (trap, six) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    let hosts: [(&str, &[&[IpAddr]]); 6] = [
        ("turns.test", &[&[good], &[trap]]),
        ("turns-at-last.test", &[&[good], &[good], &[good], &[six]]),
        ("both.test", &[&[good, trap], &[trap, good]]),
        ("both-kinds.test", &[&[good, six]]),
        ("disguised.test", &[&[good, mapped]]),
        ("trap.test", &[&[trap], &[six], &[mapped], &[trap, six]]),
    ];
    for (name, turns) in hosts {
        names.lead(name, turns);
        let wanted = json!({"name": name, "url": format!("http://{name}:{port}/hook"), "event_types": ["task.completed"]});
        app.client().post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
    }
    app.client().ask("Tell them", json!({})).await?;
    let mut said: BTreeSet<(String, String)> = BTreeSet::new();
    for attempts in 1..=TURNS {
        for delivery in noted(app.client(), hosts.len(), attempts).await? {
            said.insert((text(&delivery["endpoint_id"]), text(&delivery["last_error"])));
            let path = format!("/v1/webhook_deliveries/{}/redeliver", text(&delivery["id"]));
            app.client().post(&path, &json!({})).await?.expect(200)?;
        }
    }
    let refused = said.iter().filter(|(_, error)| error == REFUSED).count();
    let called = said.iter().filter(|(_, error)| error.starts_with("status 500")).count();
    assert_eq!((refused, called, said.len()), (hosts.len(), 2, hosts.len() + 2), "{said:?}");
    for (name, _) in hosts {
        assert!(names.asked(name) >= TURNS, "{name} was looked up {} times", names.asked(name));
    }
    for trap in traps {
        trap.set_nonblocking(true)?;
        let nobody = trap.accept().map(|(_, peer)| peer);
        assert!(
            matches!(&nobody, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{nobody:?}"
        );
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The deliveries, once so many attempts of each are noted.
async fn noted(client: &Client, count: usize, attempts: usize) -> anyhow::Result<Vec<Value>> {
    within(Duration::from_secs(20), "the attempts are noted", async || {
        let list = client.get("/v1/webhook_deliveries").await?.expect(200)?;
        let all = list["data"].as_array().context("no list")?.clone();
        let is_noted = |delivery: &&Value| {
            let due =
                delivery["next_attempt_at"].as_f64().unwrap_or_default() - UnixMs::now().0 as f64 / 1_000.0;
            // While an attempt is under way it is due again in a minute, when its claim runs out.
            let under_way = delivery["last_error"].is_null() || (45.0..=61.0).contains(&due);
            delivery["attempts"].as_u64() >= Some(attempts as u64) && !under_way
        };
        Ok((all.len() == count && all.iter().filter(is_noted).count() == count).then_some(all))
    })
    .await
}
