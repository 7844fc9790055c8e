//! libswscale. Declarations follow libswscale/swscale.h.

use super::super::Work;
use super::Job;
use parlor::media::canvas::PixelLayout;
use std::ffi::{c_int, c_void};
use std::ptr::{null, null_mut};

/// Constants of libavutil/pixfmt.h (major version 57).
const YUV420P: c_int = 0;
const BGRA: c_int = 28;
const RGB565LE: c_int = 37;

/// Settings of libswscale/swscale.h.
pub const FAST_BILINEAR: c_int = 1;
pub const BILINEAR: c_int = 2;

#[rustfmt::skip]
#[link(name = "swscale")]
unsafe extern "C" {
    fn sws_getContext(
        width: c_int, height: c_int, format: c_int, to_width: c_int, to_height: c_int, to_format: c_int, flags: c_int,
        source_filter: *mut c_void, target_filter: *mut c_void, parameters: *const f64,
    ) -> *mut c_void;
    fn sws_freeContext(context: *mut c_void);
    fn sws_scale(
        context: *mut c_void, planes: *const *const u8, strides: *const c_int, first: c_int, height: c_int,
        to: *const *mut u8, to_strides: *const c_int,
    ) -> c_int;
}

struct Context(*mut c_void);

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `sws_getContext`, freed once.
        unsafe { sws_freeContext(self.0) }
    }
}

/// Scales and converts at one of its settings.
pub fn at(work: &Work, flags: c_int) -> impl FnMut(Job) + use<> {
    let tile = work.tiles[0];
    let format = if work.layout == PixelLayout::RGB565 { RGB565LE } else { BGRA };
    let [width, height, to_width, to_height] =
        [work.source.width, work.source.height, tile.width, tile.height].map(|side| side as c_int);
    // SAFETY: plain numbers; no filters, no parameters.
    let context = Context(unsafe {
        sws_getContext(
            width,
            height,
            YUV420P,
            to_width,
            to_height,
            format,
            flags,
            null_mut(),
            null_mut(),
            null(),
        )
    });
    assert!(!context.0.is_null(), "libswscale scales {width}x{height} to {to_width}x{to_height}");
    move |(planes, strides, _, height, to, stride, _, _)| {
        let context = &context;
        // SAFETY: the planes cover the source the context was made for, and the tile lies on the screen.
        unsafe {
            sws_scale(
                context.0,
                planes.as_ptr(),
                strides.as_ptr(),
                0,
                height,
                [to].as_ptr(),
                [stride].as_ptr(),
            );
        }
    }
}
