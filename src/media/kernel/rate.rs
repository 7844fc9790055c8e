//! OpenH264's bit rate and picture rate while it runs, which its safe wrapper cannot change.

#![allow(unsafe_code)]

use openh264::encoder::Encoder;
use openh264_sys2::{
    ENCODER_OPTION, ENCODER_OPTION_BITRATE, ENCODER_OPTION_FRAME_RATE, SBitrateInfo, SPATIAL_LAYER_ALL,
};
use std::ffi::c_int;

/// Sets both for the pictures from now on; `encoder` must have coded a picture, and takes no bit rate above the one it
/// was opened with. False if it refused: it goes on as before.
pub fn set_rate(encoder: &mut Encoder, bitrate_bps: u32, rate_hz: f32) -> bool {
    let bitrate = c_int::try_from(bitrate_bps).unwrap_or(c_int::MAX);
    let mut bitrate = SBitrateInfo { iLayer: SPATIAL_LAYER_ALL, iBitrate: bitrate };
    let mut rate_hz = rate_hz;
    // SAFETY: OpenH264 reads a float for this option (codec_app_def.h).
    let paced = unsafe { set(encoder, ENCODER_OPTION_FRAME_RATE, &mut rate_hz) };
    // SAFETY: OpenH264 reads an SBitrateInfo for this option (codec_app_def.h).
    let limited = unsafe { set(encoder, ENCODER_OPTION_BITRATE, &mut bitrate) };
    paced && limited
}

/// Whether the option was taken.
///
/// # Safety
/// `value` is of the type that OpenH264 reads for `option`.
unsafe fn set<T>(encoder: &mut Encoder, option: ENCODER_OPTION, value: &mut T) -> bool {
    // SAFETY: the encoder lives as long as this call, the value is of the right type and only read during it.
    unsafe { encoder.raw_api().set_option(option, std::ptr::from_mut(value).cast()) == 0 }
}
