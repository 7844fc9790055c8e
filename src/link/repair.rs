//! Interceptors that mend what webrtc 0.21 leaves broken: RTX and NACK, PLI to the application.
