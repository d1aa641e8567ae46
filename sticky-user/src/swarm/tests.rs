mod lost;
mod snapshot;
