//! Parlor: an ARM Linux board with cameras and a screen as an endpoint of a video room.

pub mod device;
pub mod geometry;
pub mod link;
pub mod mailbox;
pub mod media;
pub mod room;
pub mod sim;
