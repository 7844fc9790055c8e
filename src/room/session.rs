//! Signalling with one member: hello, offer, answer, sessions and their order.
