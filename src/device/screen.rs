//! The framebuffer (fbdev): what it is, and its memory to be drawn on.
//!
//! `linuxfb` opens, asks, sets and unblanks. It knows no line length, maps too little where rows are padded and
//! flips by setting a mode, so mapping, FSCREENINFO and PAN_DISPLAY are done here (Linux "The Frame Buffer Device
//! API"). FBIO_WAITFORVSYNC is not used: without a vertical blank to wait for drivers return at once or not at all.
#![allow(unsafe_code)]

use super::ioctl::{Mapping, error, finding, ioctl};
use super::{Error, Kind, Screen, ScreenMode};
use crate::geometry::Size;
use crate::media::canvas::{Channel, PixelLayout, Surface};
use linuxfb::{BlankingLevel, PixelLayoutChannel};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Opens the framebuffer at `path`, makes it 32 or 16 bits a pixel if it is neither, and unblanks it.
///
/// With `flip` two pages take turns if the driver has two and agrees ([`ScreenMode::flip`] tells); without, changes are
/// drawn on the page that is shown. It must be asked for: a driver's yes to PAN_DISPLAY is no proof that the picture
/// moved (bochs-drm says yes and stays).
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::NotAuthorized`], [`Kind::Busy`], [`Kind::Format`] (no usable depth),
/// [`Kind::Gone`]: try again later.
pub fn open(path: &str, flip: bool) -> Result<Framebuffer, Error> {
    let failed = |operation| move |source: io::Error| error(operation, path, &source);
    let mut device = linuxfb::Framebuffer::new(path).map_err(plain).map_err(failed("open"))?;
    let layout =
        settle_layout(&mut device).ok_or_else(|| finding(Kind::Format, "FBIOPUT_VSCREENINFO", path))?;
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
    // The console scrolls by panning, and an earlier life may have ended on its second page.
    let _ = pan(&file, 0);
    let flips = flip && prepare_flip(&mut device, &file);
    if flip && !flips {
        warn!(path, "the screen has no second page: it is drawn on while it is shown");
    }
    // Most drivers answer an error where nothing was blank.
    let _ = device.blank(BlankingLevel::Unblank);

    let variable = get_variable(&file).map_err(failed("FBIOGET_VSCREENINFO"))?;
    let fixed = get_fixed(&file).map_err(failed("FBIOGET_FSCREENINFO"))?;
    let size = Size::new(variable.width, variable.height);
    let stride = fixed.line_length as usize;
    let row = size.width as usize * layout.bytes_per_pixel;
    if size.is_empty() || stride < row || fixed.kind != PACKED_PIXELS {
        return Err(finding(Kind::Format, "FBIOGET_FSCREENINFO", path));
    }
    let origin = variable.y_offset as usize * stride + variable.x_offset as usize * layout.bytes_per_pixel;
    let pages = if flips { 2 } else { 1 };
    let length = origin + stride * (size.height as usize * pages - 1) + row;
    let map = Mapping::new(file.as_raw_fd(), 0, length, true).map_err(failed("mmap"))?;
    let mode = ScreenMode { name: text(&fixed.id), size, layout, flip: flips };
    info!(path, name = mode.name, %size, bits = layout.bytes_per_pixel * 8, stride, flips, "screen open");
    Ok(Framebuffer {
        path: path.to_owned(),
        shown: 0,
        next_look: Instant::now() + LOOK,
        found: (variable.mode(), fixed.line_length),
        mode,
        origin,
        stride,
        map,
        file,
    })
}

/// How often the mode is looked at: nobody tells when another program or a new monitor changes it.
const LOOK: Duration = Duration::from_secs(1);

/// An open framebuffer.
pub struct Framebuffer {
    path: String,
    mode: ScreenMode,
    /// Mode and line length as they were when it was opened.
    found: ([u32; 9], u32),
    /// Byte of the first pixel that is shown.
    origin: usize,
    stride: usize,
    /// The page that is shown.
    shown: usize,
    next_look: Instant,
    map: Mapping,
    file: File,
}

impl Screen for Framebuffer {
    fn mode(&self) -> &ScreenMode {
        &self.mode
    }

    fn present(&mut self, paint: &mut dyn FnMut(usize, Surface<'_>)) -> Result<(), Error> {
        self.check()?;
        let page = if self.mode.flip { 1 - self.shown } else { 0 };
        let start = self.origin + page * self.mode.size.height as usize * self.stride;
        let bytes = self.map.bytes_mut().get_mut(start..).unwrap_or_default();
        let surface = Surface::new(self.mode.size, self.mode.layout, self.stride, bytes);
        paint(page, surface.ok_or_else(|| finding(Kind::Format, "mmap", &self.path))?);
        if page != self.shown {
            let top = page as u32 * self.mode.size.height;
            pan(&self.file, top).map_err(|source| self.lost("FBIOPAN_DISPLAY", &source))?;
            self.shown = page;
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        if Instant::now() >= self.next_look {
            self.look()?;
            self.next_look = Instant::now() + LOOK;
        }
        Ok(())
    }
}

impl Framebuffer {
    fn lost(&self, operation: &'static str, source: &io::Error) -> Error {
        Error { kind: loss(source), ..error(operation, &self.path, source) }
    }

    /// Compares the mode with the one the screen was opened with.
    fn look(&self) -> Result<(), Error> {
        let variable =
            get_variable(&self.file).map_err(|source| self.lost("FBIOGET_VSCREENINFO", &source))?;
        let fixed = get_fixed(&self.file).map_err(|source| self.lost("FBIOGET_FSCREENINFO", &source))?;
        if (variable.mode(), fixed.line_length) != self.found {
            return Err(finding(Kind::Gone, "FBIOGET_VSCREENINFO", &self.path));
        }
        Ok(())
    }
}

/// What worked when the screen was opened and fails now: there is no screen any more (its driver was unbound), or it is
/// not the screen it was.
fn loss(source: &io::Error) -> Kind {
    match source.raw_os_error() {
        Some(libc::ENODEV) => Kind::NotFound,
        _ => Kind::Gone,
    }
}

impl Drop for Framebuffer {
    fn drop(&mut self) {
        // Whoever draws next expects the first page.
        if self.shown != 0 {
            let _ = pan(&self.file, 0);
        }
    }
}

/// The layout as it is, else after asking for 32 and then 16 bits a pixel; `None` if none can be used.
/// The driver's yes means nothing: `linuxfb` reads again what came of it.
fn settle_layout(device: &mut linuxfb::Framebuffer) -> Option<PixelLayout> {
    let settled = |device: &linuxfb::Framebuffer| {
        let layout = device.get_pixel_layout();
        usable(device.get_bytes_per_pixel(), [&layout.red, &layout.green, &layout.blue])
    };
    settled(device).or_else(|| {
        [4, 2].into_iter().find_map(|bytes| {
            device.set_bytes_per_pixel(bytes).ok()?;
            settled(device)
        })
    })
}

/// The layout if a canvas can be drawn in it: whole channels of 1 to 8 bits that do not overlap, in 2 or 4 bytes.
fn usable(bytes_per_pixel: u32, channels: [&PixelLayoutChannel; 3]) -> Option<PixelLayout> {
    let mut taken = 0_u32;
    for channel in channels {
        let inside = channel.offset < 32 && channel.offset + channel.length <= bytes_per_pixel * 8;
        if !matches!(bytes_per_pixel, 2 | 4)
            || channel.msb_right
            || !(1..=8).contains(&channel.length)
            || !inside
        {
            return None;
        }
        let bits = ((1 << channel.length) - 1) << channel.offset;
        if taken & bits != 0 {
            return None;
        }
        taken |= bits;
    }
    let [red, green, blue] =
        channels.map(|channel| Channel { offset: channel.offset as u8, length: channel.length as u8 });
    Some(PixelLayout { bytes_per_pixel: bytes_per_pixel as usize, red, green, blue })
}

/// Gets a virtual screen of two pages and tries to show each. False, and the first page shown, if that fails.
fn prepare_flip(device: &mut linuxfb::Framebuffer, file: &File) -> bool {
    let (_, height) = device.get_size();
    let (virtual_width, virtual_height) = device.get_virtual_size();
    let doubled = height.saturating_mul(2);
    if virtual_height < doubled && device.set_virtual_size(virtual_width, doubled).is_err() {
        return false;
    }
    let (Ok(variable), Ok(fixed)) = (get_variable(file), get_fixed(file)) else { return false };
    let enough = u64::from(fixed.line_length) * u64::from(doubled);
    let pages = variable.virtual_height >= doubled
        && fixed.y_pan_step != 0
        && height % u32::from(fixed.y_pan_step) == 0
        && u64::from(fixed.memory_length) >= enough;
    // Back to the first page whatever the second said.
    let second = pages && pan(file, height).is_ok();
    pan(file, 0).is_ok() && second
}

/// Shows the virtual screen from row `top` on.
fn pan(file: &File, top: u32) -> io::Result<()> {
    let mut variable = get_variable(file)?;
    (variable.x_offset, variable.y_offset) = (0, top);
    // SAFETY: FBIOPAN_DISPLAY takes a struct fb_var_screeninfo.
    unsafe { ioctl(file.as_raw_fd(), FBIOPAN_DISPLAY, &mut variable) }
}

fn get_variable(file: &File) -> io::Result<Variable> {
    let mut variable = Variable::default();
    // SAFETY: FBIOGET_VSCREENINFO fills a struct fb_var_screeninfo.
    unsafe { ioctl(file.as_raw_fd(), FBIOGET_VSCREENINFO, &mut variable) }?;
    Ok(variable)
}

fn get_fixed(file: &File) -> io::Result<Fixed> {
    let mut fixed = Fixed::default();
    // SAFETY: FBIOGET_FSCREENINFO fills a struct fb_fix_screeninfo.
    unsafe { ioctl(file.as_raw_fd(), FBIOGET_FSCREENINFO, &mut fixed) }?;
    Ok(fixed)
}

const FBIOGET_VSCREENINFO: libc::c_ulong = 0x4600;
const FBIOGET_FSCREENINFO: libc::c_ulong = 0x4602;
const FBIOPAN_DISPLAY: libc::c_ulong = 0x4606;
/// FB_TYPE_PACKED_PIXELS.
const PACKED_PIXELS: u32 = 0;

/// `struct fb_var_screeninfo` of linux/fb.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Variable {
    width: u32,
    height: u32,
    virtual_width: u32,
    virtual_height: u32,
    x_offset: u32,
    y_offset: u32,
    bits_per_pixel: u32,
    grayscale: u32,
    /// Offset, length and bit order of red, green, blue, transparency.
    channels: [[u32; 3]; 4],
    /// Non-standard format, activation, physical size, timings, rotation, colour space, reserved.
    rest: [u32; 20],
}

impl Variable {
    /// What must not change while the screen is open.
    fn mode(&self) -> [u32; 9] {
        let [red, green, blue, _] = self.channels;
        let bits = self.bits_per_pixel;
        [self.width, self.height, bits, red[0], red[1], green[0], green[1], blue[0], blue[1]]
    }
}

/// `struct fb_fix_screeninfo` of linux/fb.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Fixed {
    id: [u8; 16],
    memory_start: libc::c_ulong,
    memory_length: u32,
    kind: u32,
    kind_aux: u32,
    visual: u32,
    x_pan_step: u16,
    y_pan_step: u16,
    y_wrap_step: u16,
    line_length: u32,
    registers_start: libc::c_ulong,
    registers_length: u32,
    accelerator: u32,
    capabilities: u16,
    reserved: [u16; 2],
}

const _: () = assert!(size_of::<Variable>() == 160);
const _: () = assert!(size_of::<Fixed>() == 48 + 4 * size_of::<libc::c_ulong>());

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn plain(error: linuxfb::Error) -> io::Error {
    match (error.io, error.fb) {
        (Some(error), _) => error,
        (None, Some(error)) => io::Error::from_raw_os_error(error.errno),
        (None, None) => io::Error::other("linuxfb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(offset: u32, length: u32) -> PixelLayoutChannel {
        PixelLayoutChannel { offset, length, msb_right: false }
    }

    #[test]
    fn true_colour_of_two_and_four_bytes_is_usable_in_any_order() {
        let xrgb = [&channel(16, 8), &channel(8, 8), &channel(0, 8)];
        let xbgr = [&channel(0, 8), &channel(8, 8), &channel(16, 8)];
        let rgb565 = [&channel(11, 5), &channel(5, 6), &channel(0, 5)];

        assert_eq!(usable(4, xrgb), Some(PixelLayout::XRGB8888));
        assert_eq!(usable(4, xbgr).map(|layout| layout.red.offset), Some(0));
        assert_eq!(usable(2, rgb565), Some(PixelLayout::RGB565));
    }

    #[test]
    fn palettes_deep_colour_and_nonsense_are_not_usable() {
        let palette = [&channel(0, 8), &channel(0, 8), &channel(0, 8)];
        let deep = [&channel(20, 10), &channel(10, 10), &channel(0, 10)];
        let outside = [&channel(16, 8), &channel(8, 8), &channel(u32::MAX, 8)];
        let rgb888 = [&channel(16, 8), &channel(8, 8), &channel(0, 8)];

        assert_eq!(usable(1, palette), None);
        assert_eq!(usable(4, palette), None);
        assert_eq!(usable(4, deep), None);
        assert_eq!(usable(4, outside), None);
        assert_eq!(usable(3, rgb888), None);
    }

    #[test]
    fn a_screen_that_is_not_there_is_not_found() {
        let kind = open("/dev/fb-none", false).err().map(|error| error.kind);

        assert_eq!(kind, Some(Kind::NotFound));
    }

    #[test]
    fn a_screen_that_was_taken_away_is_not_one_that_was_changed() {
        let kind = |errno| loss(&io::Error::from_raw_os_error(errno));

        assert_eq!(kind(libc::ENODEV), Kind::NotFound);
        assert_eq!(kind(libc::EINVAL), Kind::Gone);
    }

    #[test]
    fn a_file_is_no_screen() {
        let kind = open("/dev/null", false).err().map(|error| error.kind);

        assert_eq!(kind, Some(Kind::NotFound));
    }
}
