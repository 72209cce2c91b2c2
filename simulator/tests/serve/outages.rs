//! Outages: what everybody suffers for a while, and minutes in which nobody listens.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Behaviour, Outage, Simulator};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::server::{CHAT, Server, chat, streamed};

async fn config(server: &Server, outage: &Value) -> (u16, Value) {
    let url = format!("http://{}/_sim/config", server.address);
    let response = server.client.post(url).body(outage.to_string()).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn get(server: &Server, path: &str) -> (u16, String) {
    let response = server.client.get(format!("http://{}{path}", server.address)).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn status(server: &Server, sim: Value) -> u16 {
    server.post(CHAT, &chat(sim), "task").await.status().as_u16()
}

async fn refused(server: &Server) -> bool {
    TcpStream::connect(&server.address).await.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[tokio::test]
async fn everybody_suffers_an_outages_fault_until_it_ends() {
    let server = Server::start(Behaviour::instant()).await;
    let outage = json!({"fault": {"status": 503, "error_code": "down"}, "model": "sim-chat"});
    let (ok, shown) = config(&server, &outage).await;
    assert_eq!((ok, &shown["fault"], &shown["ends_in_ms"]), (200, &outage["fault"], &json!(null)));
    assert_eq!(get(&server, "/_sim/config").await.1, shown.to_string());
    assert_eq!(status(&server, json!({})).await, 503);
    // The request's own faults give way, its own times stay.
    assert_eq!(status(&server, json!({"status": 400, "ttft_ms": 0})).await, 503);
    assert_eq!(server.ended("task").await.how, "status");
    let mut other = chat(json!({}));
    other["model"] = "sim-other".into();
    assert_eq!(server.post(CHAT, &other, "other").await.status(), 200);
    assert_eq!(get(&server, "/v1/models").await.0, 200);

    config(&server, &json!({"fault": {"reset": true, "fail_first": 1}})).await;
    let mut socket = server.call(CHAT, &chat(json!({})), "once").await;
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.post(CHAT, &chat(json!({})), "once").await.status(), 200);

    for end in [json!(null), json!({}), json!({"fault": null}), json!({"fault": {}})] {
        config(&server, &json!({"fault": {"status": 503}, "models": false})).await;
        assert_eq!((status(&server, json!({})).await, get(&server, "/v1/models").await.0), (503, 503));
        assert_eq!(get(&server, "/v1/models/sim-chat").await.0, 503);
        assert_eq!(config(&server, &end).await, (200, json!(null)));
        assert_eq!((status(&server, json!({})).await, get(&server, "/v1/models").await.0), (200, 200));
    }
    for wrong in [json!({"fault": {"oops": 1}}), json!({"refuse": true}), json!({"share": 2})] {
        assert_eq!(config(&server, &wrong).await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn an_outage_ends_by_itself() {
    let server = Server::start(Behaviour::instant()).await;
    config(&server, &json!({"fault": {"status": 529}, "for_ms": 150})).await;
    assert_eq!(status(&server, json!({})).await, 529);
    let ends = async {
        while status(&server, json!({})).await != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ends).await.unwrap();
    assert_eq!(get(&server, "/_sim/config").await.1, "null");
}

#[tokio::test]
async fn nobody_listens_while_it_refuses() {
    let server = Server::start(Behaviour::instant()).await;
    let waiting = server.call(CHAT, &chat(json!({"ttft_ms": 60_000})), "waiting").await;
    let mut hanging = server.call(CHAT, &streamed(json!({"hang_ms": 60_000})), "hanging").await;
    assert!(hanging.read(&mut [0; 8]).await.unwrap() > 0);
    while server.simulator.running() < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        let outage = Outage::parse(&json!({"refuse": true})).unwrap();
        server.simulator.outage(Some(outage)).await;
        assert!(refused(&server).await);
        server.simulator.outage(None).await;
        assert_eq!(status(&server, json!({})).await, 200);
    }
    for (task, mut socket) in [("waiting", waiting), ("hanging", hanging)] {
        let mut rest = Vec::new();
        assert_eq!(socket.read_to_end(&mut rest).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(server.ended(task).await.how, "refuse");
    }
}

#[tokio::test]
async fn a_refusal_over_http_answers_first_and_ends_by_itself() {
    let server = Server::start(Behaviour::instant()).await;
    let (ok, shown) = config(&server, &json!({"refuse": true, "for_ms": 300})).await;
    assert_eq!((ok, &shown["refuse"]), (200, &json!(true)));
    assert!(refused(&server).await);
    // The connection that brought the request is gone as well.
    assert!(server.client.get(format!("http://{}/v1/models", server.address)).send().await.is_err());
    let ends = async {
        while refused(&server).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ends).await.unwrap();
    assert_eq!(get(&server, "/v1/models").await.0, 200);
}

#[tokio::test]
async fn a_refusal_may_begin_before_anybody_listens() {
    let simulator = Simulator::new(Behaviour::instant());
    simulator.outage(Some(Outage::parse(&json!({"refuse": true})).unwrap())).await;
    let server = Server::of(simulator).await;
    let shuts = async {
        while !refused(&server).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), shuts).await.unwrap();
    server.simulator.outage(None).await;
    assert_eq!(status(&server, json!({})).await, 200);
}
