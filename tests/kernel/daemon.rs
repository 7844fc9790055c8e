//! The whole daemon on real devices.
