//! The framebuffer.
