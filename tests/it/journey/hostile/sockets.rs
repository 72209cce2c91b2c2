//! `GET /v1/ws`: openings that are none, and frames that no client library sends.

use super::case::{Case, bodiless, raw};

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const UPGRADE: &str = "upgrade: websocket\r\n";
const VERSION: &str = "sec-websocket-version: 13\r\n";

pub(super) fn cases() -> Vec<Case> {
    [openings(), frames()].into_iter().flatten().collect()
}

fn openings() -> Vec<Case> {
    let opening = |what: &str, lines: &str| {
        let head = format!("GET /v1/ws HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
        raw(what, head).is(400, "invalid_request", None)
    };
    let upgrade = "connection: upgrade\r\n";
    vec![
        opening("no upgrade", "connection: close\r\n"),
        opening("no key", &format!("connection: upgrade, close\r\n{UPGRADE}{VERSION}")),
        opening("no version", &format!("connection: upgrade, close\r\n{UPGRADE}{KEY}")),
        opening(
            "an old version",
            &format!("connection: upgrade, close\r\n{UPGRADE}{KEY}sec-websocket-version: 8\r\n"),
        ),
        opening("another protocol", &format!("connection: upgrade, close\r\nupgrade: h2c\r\n{KEY}{VERSION}")),
        opening("no connection header", &format!("connection: close\r\n{UPGRADE}{KEY}{VERSION}")),
        raw(
            "HTTP/1.0",
            format!("GET /v1/ws HTTP/1.0\r\nhost: localhost\r\n{upgrade}{UPGRADE}{KEY}{VERSION}\r\n"),
        )
        .is(401, "invalid_api_key", None),
        bodiless("POST", "/v1/ws", UPGRADE).is(405, "method_not_allowed", None),
    ]
}

/// A frame as a client sends it, but for what is wrong with it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => vec![0x80 | short as u8],
        Ok(long) => [&[0xfe], long.to_be_bytes().as_slice()].concat(),
        Err(_) => [&[0xff], (payload.len() as u64).to_be_bytes().as_slice()].concat(),
    };
    // A mask of zeroes leaves the payload as it is.
    [vec![first], length, vec![0; 4], payload.to_vec()].concat()
}

fn frames() -> Vec<Case> {
    let head = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n{UPGRADE}{KEY}{VERSION}\r\n"
    );
    let open =
        |what: &str, frames: Vec<u8>, codes| raw(what, [head.as_bytes(), &frames].concat()).closes(codes);
    let (text, binary, ping, bye, more) = (0x81, 0x82, 0x89, 0x88, 0x00);
    let long = vec![b' '; (64 << 10) + 1];
    let mut unmasked = frame(text, b"{}");
    unmasked[1] &= 0x7f;
    let flood = [frame(0x01, b""), frame(more, &[b' '; 1_000]).repeat(100)].concat();
    let announced = [&[text, 0xff], u64::MAX.to_be_bytes().as_slice(), &[0; 4]].concat();
    let talk = |say: &str| [frame(text, say.as_bytes()), frame(bye, &1000_u16.to_be_bytes())].concat();
    vec![
        open("a text that is no UTF-8", frame(text, b"\xff\xfe"), &[1007]),
        open("a text of half a character", frame(text, b"\xe2\x82"), &[1007]),
        open("no mask", unmasked, &[1002]),
        open("a text of 64 KiB + 1", frame(text, &long), &[1009]),
        open("a binary of 64 KiB + 1", frame(binary, &long), &[1009]),
        open("a length of 2^64 - 1", announced, &[1002, 1009]),
        open("fragments without end", flood, &[1009]),
        open("a piece of nothing", frame(more | 0x80, b"x"), &[1002]),
        open("a text in a text", [frame(0x01, b"a"), frame(text, b"b")].concat(), &[1002]),
        open("a ping of 126", frame(ping, &[0; 126]), &[1002]),
        open("a ping in pieces", frame(0x09, b"x"), &[1002]),
        open("an operation that is none", frame(0x83, b"x"), &[1002]),
        open("reserved bits", frame(0xf1, b"x"), &[1002]),
        open("a farewell of one byte", frame(bye, b"x"), &[1002]),
        open("a farewell that may not be said", frame(bye, &1005_u16.to_be_bytes()), &[1002]),
        open("a farewell that is no UTF-8", frame(bye, b"\x03\xe8\xff"), &[1007, 1002]),
        open("garbage, then a farewell", talk("garbage"), &[1000]),
        open("depth, then a farewell", talk(&"[".repeat(60_000)), &[1000]),
        open("an unheard-of word, then a farewell", talk(r#"{"type":"shutdown"}"#), &[1000]),
        open(
            "a broken task, then a farewell",
            talk(r#"{"type":"task.create","task":{"endpoint":1}}"#),
            &[1000],
        ),
        open(
            "a thousand topics and one, then a farewell",
            talk(&format!(
                r#"{{"type":"subscribe","topics":[{}"project:me"]}}"#,
                r#""project:me","#.repeat(1_000)
            )),
            &[1000],
        ),
        open(
            "a cursor out of bounds, then a farewell",
            talk(r#"{"type":"resume","cursors":{"project:me":9223372036854775807}}"#),
            &[1000],
        ),
    ]
}
