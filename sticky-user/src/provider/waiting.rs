//! What tests of every provider wait for and count.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::Found;

/// Waits until the provider says what is asked for.
pub(crate) async fn until(
    found: &mut watch::Receiver<Arc<Found>>,
    what: impl Fn(&Found) -> bool,
) -> Arc<Found> {
    let wait = async { found.wait_for(|found| what(found)).await.map(|found| Arc::clone(&found)) };
    timeout(Duration::from_secs(20), wait)
        .await
        .expect("the provider sees it")
        .expect("the provider runs")
}

pub(crate) fn backends(found: &Found) -> usize {
    found.snapshot.services.iter().map(|service| service.backends.len()).sum()
}
