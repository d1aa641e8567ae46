//! The head of a response: what a backend says, our cookie, and who answered.

use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tracing::warn;

use super::Asked;
use crate::proxy::choice::Choice;
use crate::proxy::exchange::Exchange;
use crate::proxy::headers::{
    self, X_PROXY_ID, X_REQUEST_ID, X_SERVER_INFO, X_UPSTREAM_ADDR, X_UPSTREAM_RESPONSE_TIME,
};
use crate::proxy::learn::{self, Change, Situation};
use crate::proxy::reason::Reason;
use crate::proxy::respond::Refusal;
use crate::proxy::routes::Route;
use crate::proxy::seal;
use crate::proxy::tag;

/// Makes a backend's response ours.
pub(super) fn finish(
    asked: &Asked,
    route: &Route,
    mut response: Response<()>,
    took: Duration,
    exchange: &mut Exchange,
) -> Result<Response<()>, Refusal> {
    let upgrade = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            Some(headers::upgrade(response.headers()).ok_or(Refusal::BadAnswer)?)
        }
        _ => None,
    };
    exchange.status(response.status());
    let Some(choice) = exchange.choice() else { return Ok(response) };
    let all = response.headers_mut();
    headers::strip(all, upgrade);
    set_cookies(asked, route, choice, all);
    set_tag(asked, choice, all);
    let shared = &asked.worker.shared;
    if !shared.settings.hide_info_headers {
        all.reserve(5);
        headers::set(all, &X_REQUEST_ID, exchange.id.clone());
        headers::set(all, &X_PROXY_ID, shared.proxy_id.clone());
        headers::set(all, &X_SERVER_INFO, shared.server_info.clone());
        headers::set(all, &X_UPSTREAM_ADDR, choice.backend().shown.clone());
        headers::set(all, &X_UPSTREAM_RESPONSE_TIME, seconds(took));
    }
    Ok(response)
}

fn set_cookies(asked: &Asked, route: &Route, choice: &Choice, response: &mut HeaderMap) {
    let service = &choice.service;
    let Some(affinity) = &service.cookie else { return };
    // The cookie that the client has goes on, so that it has one.
    let presented = asked.presented.cookies();
    let known = presented.own_name.as_ref();
    let known = known.filter(|name| service.own_names.contains(name));
    let own_name = known.map_or_else(|| route.own_name(service), String::as_str);
    let situation = Situation {
        affinity,
        own_name,
        root: &choice.service.root,
        pin: presented.pin.as_ref(),
        stayed: choice.reason == Reason::Pinned,
        sent: &presented.rest,
        https: asked.https,
        now: asked.now,
        repeats: &asked.worker.repeats,
    };
    let worker = &asked.worker;
    for change in learn::changes(&situation, response) {
        let value = match &change {
            Change::Delete(_) => None,
            Change::Set(attributes) => {
                let keys = worker.shared.keys.load();
                match seal::seal(&keys, &worker.nonces, own_name, choice.place(), attributes) {
                    Ok(value) => Some(value),
                    Err(error) => return warn!(%error, "no affinity cookie"),
                }
            }
        };
        let (now, repeats) = (asked.now, situation.repeats);
        let write = |out: &mut _| change.write(own_name, value.as_ref(), now, repeats, out);
        if let Some(header) = worker.lines.make(write) {
            response.append(SET_COOKIE, header);
        }
    }
}

fn set_tag(asked: &Asked, choice: &Choice, response: &mut HeaderMap) {
    let Some(name) = &choice.service.header else { return };
    let keys = asked.worker.shared.keys.load();
    let (known, sealing) = (asked.presented.tag.as_deref(), (&**keys, &asked.worker.nonces));
    if let Err(error) = tag::write(response, name, known, choice.place(), sealing) {
        warn!(%error, "no affinity in the header");
    }
}

/// Seconds with three digits, as nginx writes `$upstream_response_time`.
fn seconds(took: Duration) -> HeaderValue {
    const NONE: HeaderValue = HeaderValue::from_static("0.000");
    let written = match u16::try_from(took.as_millis()) {
        Ok(0) => return NONE,
        // Few take longer than these digits say, and a formatter takes ten times as long as they do.
        Ok(millis @ ..10_000) => {
            let digit = |unit: u16| b'0' + (millis / unit % 10) as u8;
            HeaderValue::from_bytes(&[digit(1000), b'.', digit(100), digit(10), digit(1)])
        }
        _ => HeaderValue::from_str(&format!("{}.{:03}", took.as_secs(), took.subsec_millis())),
    };
    written.unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_of_any_time() {
        for (micros, text) in [
            (999, "0.000"),
            (1_000, "0.001"),
            (1_234_567, "1.234"),
            (9_999_999, "9.999"),
            (10_000_000, "10.000"),
            (123_045_000, "123.045"),
        ] {
            assert_eq!(seconds(Duration::from_micros(micros)), text);
        }
    }
}
