//! The conversation in docs/websocket.md takes place: its `→` lines are sent, its `←` lines come.

use super::rows;
use crate::{
    journey::both_modes,
    shown::{Ids, blocks, section},
    tidy::text,
};
use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use harness::{App, Mode, PATIENCE};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{ClientRequestBuilder, Message},
};

both_modes!(the_conversation_takes_place);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Messages of one side with the fields that each may have.
type Messages = BTreeMap<String, BTreeSet<String>>;

fn messages(page: &str, heading: &str) -> anyhow::Result<Messages> {
    let of = |row: Vec<String>| (row[0].clone(), row[1].split(", ").map(str::to_owned).collect());
    Ok(rows(section(page, heading)?).into_iter().map(of).collect())
}

/// Complains of a message whose type or fields the page does not explain.
fn is_explained(message: &str, by: &Messages) -> anyhow::Result<()> {
    let message: Value = serde_json::from_str(message)?;
    let kind = message["type"].as_str().context("a message without a type")?;
    let fields = by.get(kind).with_context(|| format!("{kind} is not explained"))?;
    let has = message.as_object().into_iter().flat_map(|message| message.keys());
    for field in has.filter(|field| *field != "type") {
        anyhow::ensure!(fields.contains(field), "{kind} does not have {field}");
    }
    Ok(())
}

/// The topic of an event; answers have none.
fn topic(line: &str) -> &str {
    let topic = line.split_once(r#""topic":""#).and_then(|(_, rest)| rest.split('"').next());
    topic.unwrap_or_default()
}

async fn hear(socket: &mut Socket) -> anyhow::Result<String> {
    loop {
        let next = timeout(PATIENCE, socket.next()).await.context("the socket has fallen silent")?;
        match next.context("the socket has ended")?? {
            Message::Text(text) => return Ok(text.to_string()),
            Message::Close(close) => anyhow::bail!("closed: {close:?}"),
            _ => {}
        }
    }
}

/// Hears all of these lines: answers, and events of one task, in their order.
async fn hear_all(
    socket: &mut Socket,
    mut shown: Vec<&str>,
    ids: &mut Ids,
    known: &Messages,
) -> anyhow::Result<()> {
    while !shown.is_empty() {
        let line = hear(socket).await?;
        is_explained(&line, known)?;
        let topic_here = topic(&line);
        let of_topic = shown.iter().enumerate().filter(|(_, shown)| topic(&ids.filled(shown)) == topic_here);
        let mut places: Vec<usize> = of_topic.map(|(place, _)| place).collect();
        if topic_here.is_empty() || topic_here.starts_with("task:") {
            places.truncate(1);
        }
        let next = places.into_iter().find(|place| ids.fits(shown[*place], &line));
        let next =
            next.with_context(|| format!("came:  {line}\nshown: {}", ids.filled(&shown.join("\n"))))?;
        shown.remove(next);
    }
    Ok(())
}

fn run<'a>(lines: &mut Peekable<impl Iterator<Item = &'a str>>, arrow: &str) -> Vec<&'a str> {
    std::iter::from_fn(|| lines.next_if(|line| line.starts_with(arrow)))
        .map(|line| &line[arrow.len()..])
        .collect()
}

async fn the_conversation_takes_place(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let page = text("docs/websocket.md");
    let (ours, theirs) = (messages(&page, "## From the server")?, messages(&page, "## From the client")?);
    let (mut ids, mut heard) = (Ids::default(), 0);
    let parts = [section(&page, "## A conversation")?, section(&page, "## Counters")?];
    for (_, block) in parts.into_iter().flat_map(blocks) {
        let url = format!("{}/v1/ws", app.client().base().replacen("http", "ws", 1)).parse()?;
        let (mut socket, _) =
            connect_async(ClientRequestBuilder::new(url).with_sub_protocol("tasks.v1")).await?;
        let mut lines = block.lines().peekable();
        while lines.peek().is_some() {
            let (sent, shown) = (run(&mut lines, "→ "), run(&mut lines, "← "));
            anyhow::ensure!(sent.len() + shown.len() > 0, "neither → nor ←: {:?}", lines.next());
            for line in sent {
                let line = ids.filled(line);
                // One of them shows what a misspelt field is answered with.
                anyhow::ensure!(
                    is_explained(&line, &theirs).is_ok() || line.contains(r#""topic":"#),
                    "{line}"
                );
                socket.send(Message::text(line)).await?;
            }
            heard += shown.len();
            hear_all(&mut socket, shown, &mut ids, &ours).await?;
        }
    }
    anyhow::ensure!(heard > 20, "the conversation is where this test looks for it");
    Ok(())
}
