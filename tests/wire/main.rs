//! Clients and the local market's servers against recorded answers of the real software.

mod gateway;
mod mesh;
