//! Retries with back-off: the one place that knows the `backoff` crate.
