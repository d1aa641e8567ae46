//! Why a command failed, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::datapath;
use crate::socket::ClaimError;
use crate::socket::client::ClientError;

/// What ends a command.
#[derive(Debug)]
pub enum Failure {
    /// It went wrong.
    Failed(anyhow::Error),
    /// It was asked for something that cannot be.
    Usage(String),
    /// The process lacks a permission, named in the text.
    NotPermitted(String),
}

impl Failure {
    /// Wrong usage in several ways, one a line.
    pub(crate) fn usage(errors: &[impl ToString]) -> Self {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Self::Usage(lines.join("\nsticky: "))
    }

    /// 1 failed, 2 wrong usage, 3 not permitted.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotPermitted(_) => 3,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The whole chain of causes on one line.
            Self::Failed(error) => write!(f, "{error:#}"),
            Self::Usage(text) | Self::NotPermitted(text) => f.write_str(text),
        }
    }
}

impl From<ClaimError> for Failure {
    fn from(error: ClaimError) -> Self {
        match &error {
            ClaimError::Io { error: why, .. } if why.kind() == io::ErrorKind::PermissionDenied => {
                Self::NotPermitted(format!(
                    "{error}, or run as root or with the capability CAP_DAC_OVERRIDE"
                ))
            }
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<datapath::Error> for Failure {
    fn from(error: datapath::Error) -> Self {
        match error {
            datapath::Error::NotPermitted { .. } => Self::NotPermitted(error.to_string()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotPermitted(_) => Self::NotPermitted(error.to_string()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}
