//! Parlor: an ARM Linux board with cameras and a screen as an endpoint of a video room.

pub mod clock;
pub mod config;
pub mod ctl;
pub mod device;
pub mod geometry;
pub mod link;
pub mod mailbox;
pub mod media;
pub mod room;
pub mod sim;
pub mod supervise;
