//! The command line; every option can also be set in the environment, for `docker service create --env`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Options of the demo application.
#[derive(Debug, clap::Parser)]
#[command(
    name = "sticky-demo",
    about = "The application that the lab and the tests of sticky balance"
)]
pub struct Args {
    /// Address of the HTTP server
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address of the line server: it greets with `INSTANCE CLIENT` and echoes lines after its name
    #[arg(long, env = "TCP", value_name = "ADDR")]
    pub tcp: Option<SocketAddr>,
    /// Name of this instance [default: the host name]
    #[arg(long, env = "INSTANCE")]
    pub instance: Option<String>,
    /// The `metadata` of /ping
    #[arg(long, env = "METADATA", default_value = "")]
    pub metadata: String,
    /// The `version` of /ping
    #[arg(long = "app-version", env = "VERSION", default_value = "0.1")]
    pub version: String,
    /// On SIGTERM finish what is open, at most this long [default: exit at once]
    #[arg(long, env = "GRACEFUL", value_name = "SECONDS", value_parser = seconds)]
    pub graceful: Option<Duration>,
    /// File that each `x-idempotency` id is appended to as it is executed; several instances may share it
    #[arg(long, env = "EXECUTIONS", value_name = "FILE")]
    pub executions: Option<PathBuf>,
    /// File that is told when this instance gets SIGTERM, as `INSTANCE MILLISECONDS` of Unix time; several may share it
    #[arg(long, env = "ENDINGS", value_name = "FILE")]
    pub endings: Option<PathBuf>,
    /// End with an error after this long, as an application that crashes
    #[arg(long, env = "CRASH", value_name = "SECONDS", value_parser = seconds)]
    pub crash: Option<Duration>,
    /// Ask the instance in this container for its /health and end with 0 if it is well, for HEALTHCHECK
    #[arg(long)]
    pub check: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .map_err(|_| format!("'{text}' is not a number of seconds"))
}
