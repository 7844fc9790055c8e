//! pixman, as software renderers of windows use it: libyuv converts the picture as it is, pixman scales it. Declarations
//! follow pixman.h.

use super::{I420ToARGB, Job};
use std::ffi::{c_int, c_uint, c_void};
use std::ptr::{null, null_mut};

/// `PIXMAN_FORMAT(bits, PIXMAN_TYPE_ARGB, a, r, g, b)`.
const X8R8G8B8: c_uint = 0x2002_0888;
const R5G6B5: c_uint = 0x1002_0565;
const OP_SRC: c_int = 1;
const FILTER_BILINEAR: c_int = 4;
const REPEAT_PAD: c_int = 2;

#[rustfmt::skip]
#[link(name = "pixman-1")]
unsafe extern "C" {
    fn pixman_image_create_bits(format: c_uint, width: c_int, height: c_int, bits: *mut u32, stride: c_int) -> *mut c_void;
    fn pixman_image_unref(image: *mut c_void) -> c_int;
    fn pixman_image_set_transform(image: *mut c_void, transform: *const [[i32; 3]; 3]) -> c_int;
    fn pixman_image_set_filter(image: *mut c_void, filter: c_int, parameters: *const i32, count: c_int) -> c_int;
    fn pixman_image_set_repeat(image: *mut c_void, repeat: c_int);
    fn pixman_image_composite32(
        operator: c_int, source: *mut c_void, mask: *mut c_void, to: *mut c_void, source_x: i32, source_y: i32,
        mask_x: i32, mask_y: i32, x: i32, y: i32, width: i32, height: i32,
    );
}

struct Image(*mut c_void);

impl Image {
    /// # Safety
    /// `bits` are `height` rows, `stride` bytes apart, that live as long as the image.
    unsafe fn new(format: c_uint, (width, height): (c_int, c_int), bits: *mut u8, stride: c_int) -> Self {
        // SAFETY: as the caller says.
        let image = unsafe { pixman_image_create_bits(format, width, height, bits.cast(), stride) };
        assert!(!image.is_null(), "pixman takes {width}x{height}, {stride} bytes a row");
        Self(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: made by `pixman_image_create_bits`, let go once.
        unsafe { pixman_image_unref(self.0) };
    }
}

/// `whole` has room for the source in four bytes a pixel.
pub fn convert_then_scale(mut whole: Vec<u8>) -> impl FnMut(Job) {
    move |([y, u, v], [ys, us, vs], width, height, to, stride, tile, rgb565)| {
        let (to_width, to_height) = (tile.width as c_int, tile.height as c_int);
        let step = |from: c_int, to: c_int| ((i64::from(from) << 16) / i64::from(to)) as i32;
        let transform = [[step(width, to_width), 0, 0], [0, step(height, to_height), 0], [0, 0, 1 << 16]];
        // SAFETY: the planes cover the source, `whole` has room for it, and the tile lies on the screen; the images go
        // before both.
        unsafe {
            I420ToARGB(y, ys, u, us, v, vs, whole.as_mut_ptr(), 4 * width, width, height);
            let source = Image::new(X8R8G8B8, (width, height), whole.as_mut_ptr(), 4 * width);
            pixman_image_set_transform(source.0, &transform);
            pixman_image_set_filter(source.0, FILTER_BILINEAR, null(), 0);
            pixman_image_set_repeat(source.0, REPEAT_PAD);
            let screen =
                Image::new(if rgb565 { R5G6B5 } else { X8R8G8B8 }, (to_width, to_height), to, stride);
            pixman_image_composite32(
                OP_SRC,
                source.0,
                null_mut(),
                screen.0,
                0,
                0,
                0,
                0,
                0,
                0,
                to_width,
                to_height,
            );
        }
    }
}
