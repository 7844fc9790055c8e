//! TALKS: MQTT with the broker, WebRTC with the other members.

pub mod mqtt;
pub mod peer;
pub mod relay;
pub mod repair;
pub mod tls;
