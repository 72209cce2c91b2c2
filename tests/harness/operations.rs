//! The operations of the OpenAPI document: what is added to it later is tested by being there.

use crate::{Client, Reply};
use reqwest::Method;
use serde_json::{Value, json};

/// An operation of the document.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path, with `{id}` in place of ids.
    pub path: String,
    /// The scope it needs; `None`: nothing at all.
    pub scope: Option<String>,
    /// The fields of its body.
    pub fields: Vec<String>,
}

impl Operation {
    /// All of them.
    ///
    /// # Errors
    /// The document is not there, or not whole.
    pub async fn all(client: &Client) -> anyhow::Result<Vec<Self>> {
        let document = client.get("/openapi.json").await?.expect(200)?;
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                let scope = &operation["security"][0]["key"][0];
                let open = operation["security"] == json!([{}]);
                anyhow::ensure!(
                    open != scope.is_string(),
                    "{method} {path} says neither nothing nor a scope"
                );
                let method = method.to_uppercase().parse()?;
                let scope = scope.as_str().map(str::to_owned);
                all.push(Self { method, path: path.clone(), scope, fields: fields(&document, operation) });
            }
        }
        anyhow::ensure!(all.len() >= 25, "the document is not whole");
        Ok(all)
    }

    /// Calls it at a path, with nothing in the body.
    ///
    /// # Errors
    /// No answer.
    pub async fn call(&self, client: &Client, path: &str) -> anyhow::Result<Reply> {
        let mut request = client.request(self.method.clone(), path);
        if self.method == Method::POST {
            request = request.json(&json!({}));
        }
        Client::send(request).await
    }

    /// Whether its answer is a stream or a socket, which does not end.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.path == "/v1/ws" || self.path.ends_with("/events")
    }
}

/// The fields of an operation's body.
fn fields(document: &Value, operation: &Value) -> Vec<String> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let named = schema["$ref"].as_str().or(schema["oneOf"][0]["$ref"].as_str()).unwrap_or_default();
    let named = named.rsplit('/').next().unwrap_or_default();
    let properties = document["components"]["schemas"][named]["properties"].as_object();
    properties.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}
