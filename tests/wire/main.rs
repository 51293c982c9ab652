//! What goes over the wires, against recorded answers of the real software.

mod sdl;
