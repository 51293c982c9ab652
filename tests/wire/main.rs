//! Clients against recorded answers of the real outside world.

mod mesh;
