//! Clients and servers against recorded answers of the real software.

mod chain;
