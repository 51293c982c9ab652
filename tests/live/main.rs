//! Real programs in a sandbox.

mod mesh;
