//! Parlor: an ARM Linux board with cameras, a screen and a sound card as an endpoint of a video room.
//!
//! # The house
//!
//! The folder says what code may touch, the file name says what it is about, and the same noun has the same file
//! name everywhere.
//!
//! | place | what it does |
//! |---|---|
//! | [`room`] | DECIDES: members, layout, faults, messages; one pure value, time is a parameter |
//! | [`media`] | TRANSFORMS: bytes into bytes; pictures, sound, codecs, compositing, text |
//! | [`device`] | TOUCHES: cameras and codecs (V4L2), the screen (fbdev), the console, sound cards (ALSA) |
//! | [`link`] | TALKS: MQTT with the broker, WebRTC with the members |
//! | [`sim`] | PRETENDS: cameras, a screen, a sound card, a broker, the line to it; always built |
//! | [`kiosk`] | CONTROL PLANE: event → [`room::Room`] → commands → carried out |
//! | [`pipeline`] | DATA PLANE: what each thread does with a picture or a sound |
//! | [`supervise`] | keeps a session alive; an error or a panic becomes a fault |
//! | [`machine`], [`demo`], [`soak`], [`bench`], [`ctl`], [`provision`] | choose the devices; a room in one process; the same, shaken; measured; the operator's hand; the technician's |
//! | [`geometry`], [`mailbox`], [`regression`], [`secret`], [`clock`], [`config`] | what all of them stand on |
//!
//! Read this page, [`kiosk`], [`room`] and [`pipeline`], in this order: then you have seen the whole.
//!
//! # Who may know whom
//!
//! A level knows only lower levels, never a neighbour; `tests/architecture.rs` holds it.
//!
//! | level | who | knows |
//! |---|---|---|
//! | 5 | `main`, `bench`, `soak`, `demo`, `ctl`, `provision`, `machine` | kiosk, config; `device` or `sim`: they choose |
//! | 4 | `kiosk` | everyone below |
//! | 3 | `pipeline`, `sim` | device (traits), media, mailbox, geometry, clock, room's words, supervise |
//! | 2 | `device`, `link`, `supervise`, `config`, `clock` | device: media, geometry · link: media, room's words · the others: room |
//! | 1 | `room`, `media` | geometry |
//! | 0 | `geometry`, `mailbox`, `regression`, `secret` | nothing of ours |
//!
//! # One word for each thing
//!
//! A **room** is a list of **members** in a **document**. The screen shows one **tile** per member. What moves in a
//! tile is a **picture**: coded it is a **packet**, in one of two sizes: a **layer**; raw it is a **frame**, or an **image**
//! where its memory may be a device's. What a receiver needs of a sender's pictures is its **wish**. A member's **voice** is
//! its sound on the way to the speaker. A **fault** is something wrong in one **part**.
//! A **kiosk** is this machine; a **peer** is the connection to another member. What is drawn on is a **surface**: a
//! **page** of the screen, or a **canvas** in memory. An **overlay** lies over it, the **glass** is what a viewer sees.

pub mod bench;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod demo;
pub mod device;
pub mod geometry;
pub mod kiosk;
pub mod link;
pub mod machine;
pub mod mailbox;
pub mod media;
pub mod pipeline;
pub mod provision;
pub mod regression;
pub mod room;
pub mod secret;
pub mod sim;
pub mod soak;
pub mod supervise;
