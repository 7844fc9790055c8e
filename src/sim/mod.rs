//! PRETENDS: cameras, a screen, a sound card, a broker, the line to it, a bad network; built always, what most tests
//! and `parlor demo` run on.

pub mod broker;
pub mod camera;
pub mod line;
pub mod network;
pub mod number;
pub mod screen;
pub mod sound;
pub mod speech;
