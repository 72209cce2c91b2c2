//! Prints the API's description: `cargo run -p api --example openapi > docs/openapi.json`.

use std::io::{Write, stdout};

fn main() -> std::io::Result<()> {
    writeln!(stdout(), "{}", api::description_json())
}
