//! The API on a unix socket.
