//! The peers of the compositor bench: libyuv in both orders of scaling and converting, libswscale at its two bilinear
//! settings, and pixman behind libyuv. Declarations follow libyuv/scale.h, convert_argb.h and scale_argb.h.

use super::{Painter, Work};
use parlor::geometry::{Rect, Rotation};
use parlor::media::canvas::{Canvas, PixelLayout};
use parlor::media::frame::Frame;
use std::ffi::c_int;

#[cfg(not(target_arch = "aarch64"))]
#[path = "pixman.rs"]
mod pixman;
#[cfg(not(target_arch = "aarch64"))]
#[path = "swscale.rs"]
mod swscale;

/// Of libyuv/scale.h.
const FILTER_BILINEAR: c_int = 2;

#[rustfmt::skip]
#[link(name = "yuv")]
unsafe extern "C" {
    fn I420Scale(
        y: *const u8, ys: c_int, u: *const u8, us: c_int, v: *const u8, vs: c_int, width: c_int, height: c_int,
        to_y: *mut u8, to_ys: c_int, to_u: *mut u8, to_us: c_int, to_v: *mut u8, to_vs: c_int, to_width: c_int, to_height: c_int,
        filter: c_int,
    ) -> c_int;
    fn I420ToARGB(y: *const u8, ys: c_int, u: *const u8, us: c_int, v: *const u8, vs: c_int, to: *mut u8, to_stride: c_int, width: c_int, height: c_int) -> c_int;
    fn I420ToRGB565(y: *const u8, ys: c_int, u: *const u8, us: c_int, v: *const u8, vs: c_int, to: *mut u8, to_stride: c_int, width: c_int, height: c_int) -> c_int;
    fn ARGBScale(from: *const u8, stride: c_int, width: c_int, height: c_int, to: *mut u8, to_stride: c_int, to_width: c_int, to_height: c_int, filter: c_int) -> c_int;
    fn ARGBToRGB565(from: *const u8, stride: c_int, to: *mut u8, to_stride: c_int, width: c_int, height: c_int) -> c_int;
}

/// All peers, for even sources and targets; on 64-bit ARM, where instructions are counted, libyuv alone.
pub fn all<'a>(work: &Work) -> Vec<Painter<'a>> {
    let tile = work.tiles[0];
    let (small, large) = (
        vec![0u8; (tile.width * tile.height * 4) as usize],
        vec![0u8; (work.source.width * work.source.height * 4) as usize],
    );
    let scaled = Frame::new(tile.size());
    vec![
        painter("libyuv s>c", work, scale_then_convert(scaled)),
        painter("libyuv c>s", work, convert_then_scale(large.clone(), small)),
        #[cfg(not(target_arch = "aarch64"))]
        painter("sws fast", work, swscale::at(work, swscale::FAST_BILINEAR)),
        #[cfg(not(target_arch = "aarch64"))]
        painter("sws bilinear", work, swscale::at(work, swscale::BILINEAR)),
        #[cfg(not(target_arch = "aarch64"))]
        painter("pixman", work, pixman::convert_then_scale(large)),
    ]
}

/// The planes of what is seen, their strides, its width and height; where to write, and the stride there.
type Job = ([*const u8; 3], [c_int; 3], c_int, c_int, *mut u8, c_int, Rect, bool);

fn painter<'a>(name: &'static str, work: &Work, mut one: impl FnMut(Job) + 'a) -> Painter<'a> {
    Painter {
        name,
        screen: Canvas::new(super::SCREEN, work.layout, Rotation::None),
        paint: Box::new(move |work, screen| {
            let stride = screen.stride();
            for (tile, frame) in work.tiles.iter().zip(&work.frames) {
                let start = tile.y as usize * stride + tile.x as usize * work.layout.bytes_per_pixel;
                let to = screen.data_mut()[start..].as_mut_ptr();
                let width = frame.size().width as usize;
                let (x, y) = (work.source.x as usize, work.source.y as usize);
                let [luma, u, v] = frame.planes();
                let planes =
                    [&luma[y * width + x], &u[y / 2 * width / 2 + x / 2], &v[y / 2 * width / 2 + x / 2]]
                        .map(|first| first as *const u8);
                let strides = [width, width / 2, width / 2].map(|stride| stride as c_int);
                let (width, height) = (work.source.width as c_int, work.source.height as c_int);
                one((
                    planes,
                    strides,
                    width,
                    height,
                    to,
                    stride as c_int,
                    *tile,
                    work.layout == PixelLayout::RGB565,
                ));
            }
        }),
    }
}

fn scale_then_convert(mut scaled: Frame) -> impl FnMut(Job) {
    move |([y, u, v], [ys, us, vs], width, height, to, stride, tile, rgb565)| {
        let (to_width, to_height) = (tile.width as c_int, tile.height as c_int);
        let [a, b, c] = scaled.planes_mut().map(|plane| plane.as_mut_ptr());
        let half = to_width / 2;
        // SAFETY: the planes cover the source, `scaled` has the size of the tile, and the tile lies on the screen.
        unsafe {
            I420Scale(
                y,
                ys,
                u,
                us,
                v,
                vs,
                width,
                height,
                a,
                to_width,
                b,
                half,
                c,
                half,
                to_width,
                to_height,
                FILTER_BILINEAR,
            );
            let convert = if rgb565 { I420ToRGB565 } else { I420ToARGB };
            convert(a, to_width, b, half, c, half, to, stride, to_width, to_height);
        }
    }
}

fn convert_then_scale(mut large: Vec<u8>, mut small: Vec<u8>) -> impl FnMut(Job) {
    move |([y, u, v], [ys, us, vs], width, height, to, stride, tile, rgb565)| {
        let (to_width, to_height) = (tile.width as c_int, tile.height as c_int);
        // SAFETY: `large` has four bytes for each pixel of the source and `small` for each of the tile.
        unsafe {
            I420ToARGB(y, ys, u, us, v, vs, large.as_mut_ptr(), width * 4, width, height);
            let (out, out_stride) = if rgb565 { (small.as_mut_ptr(), to_width * 4) } else { (to, stride) };
            ARGBScale(
                large.as_ptr(),
                width * 4,
                width,
                height,
                out,
                out_stride,
                to_width,
                to_height,
                FILTER_BILINEAR,
            );
            if rgb565 {
                ARGBToRGB565(out, out_stride, to, stride, to_width, to_height);
            }
        }
    }
}
