//! The `akash-redis` command.

fn main() {}
