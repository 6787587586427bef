//! What is this? ComfyUI's language: its routes, bodies, events and frames.
//!
//! Pure, like [`crate::routing`]. Whatever ComfyUI renames next is renamed here and nowhere else.
