//! `POST /v1/ws_tickets`: what a browser opens a socket with.

use crate::{error::ApiError, fetch::DEADLINE, identity::holder, state::App, view};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use shared::{
    clock::UnixMs,
    identity::{ApiKey, TICKET_LIVES, Ticket},
};
use tokio::time::timeout;

/// A ticket.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebSocketTicket)]
pub(crate) struct TicketView<'a> {
    object: &'static str,
    /// For `GET /v1/ws?ticket=…`: good once.
    ticket: &'a str,
    /// Unix seconds, a minute from now.
    #[schema(value_type = f64)]
    expires_at: UnixMs,
}

/// Make a ticket for a socket.
///
/// Browsers cannot send a key when they open a socket. A ticket opens one, once, in the name of whoever had it made.
#[utoipa::path(
    post, path = "/v1/ws_tickets", tag = "tasks", operation_id = "create_socket_ticket",
    responses((status = 200, description = "The ticket. It is not shown again.", body = TicketView))
)]
pub(crate) async fn create(app: App, headers: HeaderMap) -> Result<Response, ApiError> {
    let (ticket, holder) = (Ticket::generate(), holder(&app.visitor, &headers));
    let digest = ApiKey::digest(ticket.expose());
    let kept = app.backends.registry.keep_ticket(&digest, &holder, TICKET_LIVES);
    let expires_at = timeout(DEADLINE, kept).await??;
    let shown = TicketView { object: "ws_ticket", ticket: ticket.expose(), expires_at };
    Ok(view::respond_once(StatusCode::OK, view::json(&shown)))
}
