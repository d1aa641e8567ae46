mod fake;
mod lost;
mod snapshot;
