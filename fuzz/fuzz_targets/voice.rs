//! Bytes for [`parlor_fuzz::voice`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    parlor_fuzz::voice(bytes);
});
