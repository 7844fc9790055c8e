//! Bytes for [`parlor_fuzz::camera`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parlor_fuzz::camera(bytes);
});
