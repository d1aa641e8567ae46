//! What a client is told when its request cannot be answered by a backend.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::headers::X_REQUEST_ID;

/// Every end of a request without a backend's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No host, several hosts, or one that is none.
    BadHost,
    /// A method that a reverse proxy does not take.
    Method,
    UnknownHost,
    /// `sticky.allow`, `sticky.deny`.
    Forbidden,
    /// `sticky.rate`.
    TooMany,
    Redirect(StatusCode, String),
    /// The client stopped sending.
    Stalled,
    /// The client's body is not what it said.
    BrokenBody,
    NoBackend,
    /// Every backend that was tried failed.
    Unreachable,
    /// The backend's answer is not HTTP, or broke off.
    BadAnswer,
    Timeout,
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::BadHost | Self::BrokenBody => StatusCode::BAD_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownHost => StatusCode::NOT_FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Redirect(status, _) => *status,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::NoBackend => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreachable | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    const fn text(&self) -> &'static str {
        match self {
            Self::BadHost => "400: the request names no host, or no valid one\n",
            Self::BrokenBody => "400: the body of the request broke off\n",
            Self::Method => "405: this method is not forwarded\n",
            Self::UnknownHost => "404: no service for this host and path\n",
            Self::Forbidden => "403: not for this address\n",
            Self::TooMany => "429: too many requests from this address\n",
            Self::Redirect(..) => "",
            Self::Stalled => "408: the body of the request stopped\n",
            Self::NoBackend => "503: the service has no backend now\n",
            Self::Unreachable => "502: no backend of the service takes connections\n",
            Self::BadAnswer => "502: the backend gave no valid answer\n",
            Self::Timeout => "504: the backend did not answer in time\n",
        }
    }

    /// The response; whatever is left of the request's body, the connection is not used again where that is unsafe.
    pub(super) fn response(self, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
        let status = self.status();
        exchange.status(status);
        let id = exchange.id.clone();
        let body = ResponseBody::text(Bytes::from_static(self.text().as_bytes()), exchange);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(&X_REQUEST_ID, id);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::NoBackend => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::TooMany => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Redirect(_, target) => {
                if let Ok(target) = HeaderValue::try_from(target) {
                    headers.insert(LOCATION, target);
                }
            }
            _ => {}
        }
        response
    }
}
