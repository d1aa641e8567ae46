//! `/ws`: a WebSocket that echoes.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::app::App;
use crate::body::{Body, full};

/// Answers the handshake (RFC 6455 §4.2.2) and echoes text and binary messages until the client closes.
pub fn upgrade(mut request: Request<Incoming>, app: &Arc<App>) -> Response<Body> {
    let asked = request
        .headers()
        .get(UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| asked) else {
        let mut response = Response::new(full("a WebSocket handshake is needed here\n"));
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    let open = app.tunnel();
    tokio::spawn(async move {
        let _open = open;
        if let Ok(io) = upgraded.await {
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await;
            // The peer ends it, in whatever way.
            let _ = echo(socket).await;
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, "Upgrade".parse().expect("a literal"));
    headers.insert(UPGRADE, "websocket".parse().expect("a literal"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().expect("base64 is ASCII"));
    response
}

async fn echo(
    mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
