//! A broker in the process, on loopback (rumqttd).
