mod few;
mod lost;
mod snapshot;
