//! Tests on real kernel devices: two V4L2 cameras, a framebuffer on a display that can be looked at, a console,
//! sound cards, a codec.
//!
//! Built and run by `board/testbed/test-kernel`, one virtual machine for each kind of screen; run elsewhere they fail.
//! They share the machine's devices, so `--test-threads=1`.

mod bed;
mod camera;
mod codec;
mod daemon;
mod faults;
mod house;
mod screen;
#[path = "../endpoint/house.rs"]
mod simulated;
mod sound;
#[path = "../support/mod.rs"]
mod support;
mod talk;
mod unit;
mod usb;
