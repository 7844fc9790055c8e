//! What an encoder is told: which controls, which of them it must have (kernel: "Codec Control Reference").

use super::super::ioctl::error;
use super::super::{Error, Kind};
use super::H264;
use super::node::Node;
use crate::geometry::Size;
use v4l::v4l_sys as sys;

/// A control and the values that will do, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    id: u32,
    name: &'static str,
    values: Vec<i32>,
    /// Without it others could not decode what comes, or not receive it: such a driver is refused.
    needed: bool,
}

/// Sets a control to the first value the driver takes.
pub fn set(node: &Node, control: &Control) -> Result<(), Error> {
    let mut answer = Ok(());
    for &value in &control.values {
        answer = node.set_control(control.id, value);
        if answer.is_ok() {
            return Ok(());
        }
    }
    match answer {
        Err(source) if control.needed => {
            let refused = error(control.name, node.name(), &source);
            // Out of range (ERANGE) is a matter of format too.
            Err(if source.raw_os_error() == Some(libc::ENODEV) {
                refused
            } else {
                Error { kind: Kind::Format, ..refused }
            })
        }
        Err(source) => {
            tracing::debug!(codec = node.name(), control = control.name, %source, "codec does without");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The bit rate as a control.
pub fn bitrate(coded: [u8; 4], bitrate_bps: u32) -> Control {
    let values = vec![i32::try_from(bitrate_bps).unwrap_or(i32::MAX)];
    Control {
        id: sys::V4L2_CID_MPEG_VIDEO_BITRATE,
        name: "V4L2_CID_MPEG_VIDEO_BITRATE",
        values,
        needed: coded == H264,
    }
}

/// What an encoder is told besides the bit rate: Constrained Baseline, constant bit rate, no B pictures, keyframes when
/// they are asked for, each with its parameter sets.
pub fn controls(coded: [u8; 4], size: Size, rate_hz: f32) -> Vec<Control> {
    let control = |id, name, values: &[i32], needed| Control { id, name, values: values.to_vec(), needed };
    // The longest that all drivers can say: they cut it to what they have.
    let mut controls =
        vec![control(sys::V4L2_CID_MPEG_VIDEO_GOP_SIZE, "V4L2_CID_MPEG_VIDEO_GOP_SIZE", &[32_767], false)];
    if coded != H264 {
        return controls;
    }
    let baseline = [
        sys::v4l2_mpeg_video_h264_profile_V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE as i32,
        sys::v4l2_mpeg_video_h264_profile_V4L2_MPEG_VIDEO_H264_PROFILE_BASELINE as i32,
    ];
    // As the software encoder's (H.264, table A-1): 3.1 holds 1280x720 at 30 Hz.
    let macroblocks = size.width.div_ceil(16) * size.height.div_ceil(16);
    let level = match macroblocks <= 3600 && macroblocks as f32 * rate_hz <= 108_000.0 {
        true => sys::v4l2_mpeg_video_h264_level_V4L2_MPEG_VIDEO_H264_LEVEL_3_1,
        false => sys::v4l2_mpeg_video_h264_level_V4L2_MPEG_VIDEO_H264_LEVEL_4_0,
    } as i32;
    let constant = sys::v4l2_mpeg_video_bitrate_mode_V4L2_MPEG_VIDEO_BITRATE_MODE_CBR as i32;
    let joined = sys::v4l2_mpeg_video_header_mode_V4L2_MPEG_VIDEO_HEADER_MODE_JOINED_WITH_1ST_FRAME as i32;
    controls.extend([
        control(sys::V4L2_CID_MPEG_VIDEO_H264_PROFILE, "V4L2_CID_MPEG_VIDEO_H264_PROFILE", &baseline, true),
        control(sys::V4L2_CID_MPEG_VIDEO_H264_LEVEL, "V4L2_CID_MPEG_VIDEO_H264_LEVEL", &[level], false),
        control(sys::V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE, "V4L2_CID_MPEG_VIDEO_FRAME_RC_ENABLE", &[1], false),
        control(
            sys::V4L2_CID_MPEG_VIDEO_BITRATE_MODE,
            "V4L2_CID_MPEG_VIDEO_BITRATE_MODE",
            &[constant],
            false,
        ),
        control(
            sys::V4L2_CID_MPEG_VIDEO_H264_I_PERIOD,
            "V4L2_CID_MPEG_VIDEO_H264_I_PERIOD",
            &[32_767],
            false,
        ),
        control(sys::V4L2_CID_MPEG_VIDEO_B_FRAMES, "V4L2_CID_MPEG_VIDEO_B_FRAMES", &[0], false),
        control(sys::V4L2_CID_MPEG_VIDEO_HEADER_MODE, "V4L2_CID_MPEG_VIDEO_HEADER_MODE", &[joined], false),
        control(
            sys::V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER,
            "V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER",
            &[1],
            false,
        ),
        control(
            sys::V4L2_CID_MPEG_VIDEO_PREPEND_SPSPPS_TO_IDR,
            "V4L2_CID_MPEG_VIDEO_PREPEND_SPSPPS_TO_IDR",
            &[1],
            false,
        ),
    ]);
    controls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bit_rate_and_profile_no_h264_is_made_and_the_rest_may_be_missing() {
        let needed = |coded| {
            let all = controls(coded, Size::new(640, 480), 30.0).into_iter().chain([bitrate(coded, 800_000)]);
            all.filter(|control| control.needed).map(|control| control.name).collect::<Vec<_>>()
        };

        assert_eq!(needed(H264), ["V4L2_CID_MPEG_VIDEO_H264_PROFILE", "V4L2_CID_MPEG_VIDEO_BITRATE"]);
        assert_eq!(needed(*b"FWHT"), [""; 0]);
    }

    #[test]
    fn the_level_holds_the_pictures_and_their_rate() {
        let level = |size, rate_hz| {
            let all = controls(H264, size, rate_hz);
            all.into_iter()
                .find(|control| control.id == sys::V4L2_CID_MPEG_VIDEO_H264_LEVEL)
                .map(|found| found.values)
        };

        assert_eq!(level(Size::new(1280, 720), 30.0), level(Size::new(320, 180), 30.0));
        assert_ne!(level(Size::new(1280, 720), 60.0), level(Size::new(320, 180), 30.0));
        assert_ne!(level(Size::new(1920, 1080), 15.0), level(Size::new(320, 180), 30.0));
    }
}
