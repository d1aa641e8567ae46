//! The other end of the control socket: what the commands ask.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::drains::{Done, Order};
use crate::status::Status;
use crate::whereis::{Answer, Question};

/// A connection to the running sticky.
pub struct Client {
    path: PathBuf,
    sender: SendRequest<Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("sticky does not run on {}; start it with `sticky run`, or say where with --socket", .0.display())]
    NotRunning(PathBuf),
    #[error(
        "only its owner may talk to {}: run as root, or with the capability CAP_DAC_OVERRIDE",
        .0.display()
    )]
    NotPermitted(PathBuf),
    #[error("{} gives no answer: {reason}", path.display())]
    NoAnswer { path: PathBuf, reason: String },
    /// The question was understood, and the answer is no.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// # Errors
    /// Nobody listens there, or not to us.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(path.to_owned())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted(path.to_owned()),
            _ => no_answer(path, error),
        })?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| no_answer(path, e))?;
        // Its error is also that of the request in progress.
        tokio::spawn(connection);
        Ok(Self { path: path.to_owned(), sender })
    }

    /// # Errors
    /// There is no answer.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        let body = self.ask(Method::GET, super::STATUS, Bytes::new()).await?;
        self.decode(&body)
    }

    /// # Errors
    /// There is no answer, or no such service.
    pub async fn locate(&mut self, question: &Question) -> Result<Vec<Answer>, ClientError> {
        let body = self.ask(Method::POST, super::WHERE, self.encode(question)?).await?;
        self.decode(&body)
    }

    /// # Errors
    /// The order is not followed.
    pub async fn drain(&mut self, order: &Order) -> Result<Done, ClientError> {
        let body = self.ask(Method::POST, super::DRAIN, self.encode(order)?).await?;
        self.decode(&body)
    }

    /// Asks the running sticky to change no map any more and to give its socket free.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub async fn begin_handover(&mut self) -> Result<(), ClientError> {
        self.ask(Method::POST, super::HANDOVER_BEGIN, Bytes::new()).await.map(drop)
    }

    /// Tells the one before us to drain and end.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn finish_handover(&mut self) -> Result<(), ClientError> {
        self.ask(Method::POST, super::HANDOVER_FINISH, Bytes::new()).await.map(drop)
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "sticky")
            .body(Full::new(body))
            .map_err(|e| no_answer(&self.path, e))?;
        // The answer before may be here while its connection is not done with it yet.
        self.sender.ready().await.map_err(|e| no_answer(&self.path, e))?;
        let response =
            self.sender.send_request(request).await.map_err(|e| no_answer(&self.path, e))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| no_answer(&self.path, e))?;
        let body = body.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(ClientError::Refused(String::from_utf8_lossy(&body).trim().to_owned()))
        }
    }

    fn encode(&self, value: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|e| no_answer(&self.path, e))
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| no_answer(&self.path, e))
    }
}

fn no_answer(path: &Path, reason: impl ToString) -> ClientError {
    ClientError::NoAnswer { path: path.to_owned(), reason: reason.to_string() }
}
