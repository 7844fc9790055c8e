//! Pixels in the framebuffer's own layout: a [`Canvas`] in memory, and the [`Surface`] that all drawing is done on, be it
//! a canvas or a page of the screen itself.

use crate::geometry::{Rect, Rotation, Size};

/// Where one colour lies in a pixel, as `struct fb_bitfield` of linux/fb.h says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Bits below it.
    pub offset: u8,
    /// Bits it has, 1 to 8.
    pub length: u8,
}

/// How a pixel is stored: 2 or 4 bytes, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelLayout {
    pub bytes_per_pixel: usize,
    pub red: Channel,
    pub green: Channel,
    pub blue: Channel,
}

impl PixelLayout {
    pub const XRGB8888: Self = Self {
        bytes_per_pixel: 4,
        red: Channel { offset: 16, length: 8 },
        green: Channel { offset: 8, length: 8 },
        blue: Channel { offset: 0, length: 8 },
    };
    pub const RGB565: Self = Self {
        bytes_per_pixel: 2,
        red: Channel { offset: 11, length: 5 },
        green: Channel { offset: 5, length: 6 },
        blue: Channel { offset: 0, length: 5 },
    };

    /// The pixel value of a colour: each channel's upper bits; bits of no channel are zero.
    #[inline(always)]
    pub fn pack(&self, colour: Rgb) -> u32 {
        let put = |value: u8, channel: Channel| u32::from(value >> (8 - channel.length)) << channel.offset;
        put(colour.red, self.red) | put(colour.green, self.green) | put(colour.blue, self.blue)
    }

    /// The colour of a pixel value, missing low bits filled with the channel's own upper bits, as displays do.
    #[inline(always)]
    pub fn unpack(&self, pixel: u32) -> Rgb {
        let get = |channel: Channel| {
            let value = (pixel >> channel.offset) & ((1 << channel.length) - 1);
            let (mut wide, mut bits) = (value << (8 - channel.length), channel.length);
            while bits < 8 {
                wide |= wide >> bits;
                bits *= 2;
            }
            wide as u8
        };
        Rgb { red: get(self.red), green: get(self.green), blue: get(self.blue) }
    }
}

/// Pixels as bytes.
impl PixelLayout {
    /// The colour of the pixel stored in `bytes`.
    #[inline(always)]
    pub fn read(&self, bytes: &[u8]) -> Rgb {
        let mut pixel = [0; 4];
        pixel[..self.bytes_per_pixel].copy_from_slice(bytes);
        self.unpack(u32::from_le_bytes(pixel))
    }

    /// Stores a pixel in `bytes`.
    #[inline(always)]
    pub fn write(&self, bytes: &mut [u8], colour: Rgb) {
        bytes.copy_from_slice(&self.pack(colour).to_le_bytes()[..self.bytes_per_pixel]);
    }

    /// Stores the same pixel all along a `row`.
    pub fn fill(&self, row: &mut [u8], colour: Rgb) {
        if row.is_empty() {
            return;
        }
        let pixel @ [first, second, ..] = self.pack(colour).to_le_bytes();
        match self.bytes_per_pixel {
            4 => row.as_chunks_mut().0.fill(pixel),
            2 => row.as_chunks_mut().0.fill([first, second]),
            bytes => row.chunks_exact_mut(bytes).for_each(|out| out.copy_from_slice(&pixel[..bytes])),
        }
    }

    /// Halves the light of a row: of a picture that is no longer fresh.
    pub fn veil(&self, row: &mut [u8]) {
        // One shift halves all channels at once if the lowest bit of each does not fall into its neighbour.
        let keep = [self.red, self.green, self.blue]
            .iter()
            .fold(0u32, |keep, channel| keep | ((1 << channel.length) - 1) >> 1 << channel.offset);
        for out in row.chunks_exact_mut(self.bytes_per_pixel) {
            let mut pixel = [0; 4];
            pixel[..out.len()].copy_from_slice(out);
            let darker = (u32::from_le_bytes(pixel) >> 1 & keep).to_le_bytes();
            out.copy_from_slice(&darker[..out.len()]);
        }
    }
}

/// A colour as the eye names it, 8 bits a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb {
    pub red: u8,
    pub green: u8,
    pub blue: u8,
}

impl Rgb {
    pub const BLACK: Self = Self::new(0, 0, 0);
    pub const WHITE: Self = Self::new(255, 255, 255);

    pub const fn new(red: u8, green: u8, blue: u8) -> Self {
        Self { red, green, blue }
    }
}

/// Pixels to be written, physical orientation. They are never read: they may be the framebuffer's own, which the
/// processor reads slowly, and where each byte that is written is seen.
#[derive(Debug)]
pub struct Surface<'a> {
    size: Size,
    layout: PixelLayout,
    rotation: Rotation,
    stride: usize,
    bytes: &'a mut [u8],
}

impl<'a> Surface<'a> {
    /// A surface of physical `size` whose rows begin `stride` bytes after one another.
    ///
    /// `None` if `bytes` do not reach to the last pixel, or rows into the next.
    pub fn new(size: Size, layout: PixelLayout, stride: usize, bytes: &'a mut [u8]) -> Option<Self> {
        let row = size.width as usize * layout.bytes_per_pixel;
        let whole = (size.height as usize).checked_sub(1).map_or(0, |last| last * stride + row);
        let fits = row <= stride && whole <= bytes.len();
        fits.then_some(Self { size, layout, rotation: Rotation::None, stride, bytes })
    }

    /// The same, mounted so that `rotation` turns what is drawn in logical coordinates (upright for the viewer)
    /// clockwise onto it.
    pub fn turned(self, rotation: Rotation) -> Self {
        Self { rotation, ..self }
    }

    /// Size as the viewer sees it.
    pub fn logical_size(&self) -> Size {
        self.rotation.size(self.size)
    }

    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    pub fn layout(&self) -> PixelLayout {
        self.layout
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The physical rectangle of what of a logical one lies on the surface.
    pub fn physical(&self, logical: Rect) -> Rect {
        let size = self.logical_size();
        self.rotation.rect(logical.intersection(Rect::of(size)), size)
    }

    /// The rows of a physical rectangle on the surface, as wide as it is.
    ///
    /// # Panics
    /// If it does not lie on the surface.
    pub fn rows(&mut self, physical: Rect) -> impl Iterator<Item = &mut [u8]> {
        assert!(Rect::of(self.size).contains(physical), "{physical:?} on {}", self.size);
        let pixel = self.layout.bytes_per_pixel;
        let (from, to) = (physical.x as usize * pixel, physical.right() as usize * pixel);
        let rows = self.bytes.chunks_mut(self.stride.max(1));
        rows.skip(physical.y as usize).take(physical.height as usize).map(move |row| &mut row[from..to])
    }

    /// Fills a logical rectangle with one colour.
    pub fn fill(&mut self, rect: Rect, colour: Rgb) {
        let layout = self.layout;
        self.rows(self.physical(rect)).for_each(|row| layout.fill(row, colour));
    }
}

/// A [`Surface`] in memory, rows without padding, that may be read.
#[derive(Clone, Debug)]
pub struct Canvas {
    size: Size,
    layout: PixelLayout,
    rotation: Rotation,
    data: Vec<u8>,
}

impl Canvas {
    /// A black canvas of physical `size`; `rotation` turns what is drawn in logical coordinates (upright for the viewer)
    /// clockwise onto it.
    pub fn new(size: Size, layout: PixelLayout, rotation: Rotation) -> Self {
        let bytes = size.area() as usize * layout.bytes_per_pixel;
        Self { size, layout, rotation, data: vec![0; bytes] }
    }

    /// The canvas to be drawn on.
    pub fn surface(&mut self) -> Surface<'_> {
        let Self { size, layout, rotation, .. } = *self;
        let stride = self.stride();
        Surface { size, layout, rotation, stride, bytes: &mut self.data }
    }

    /// Size as the kernel sees it.
    pub fn physical_size(&self) -> Size {
        self.size
    }

    /// Size as the viewer sees it: what layouts are made for.
    pub fn logical_size(&self) -> Size {
        self.rotation.size(self.size)
    }

    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    pub fn layout(&self) -> PixelLayout {
        self.layout
    }

    /// Bytes of one physical row.
    pub fn stride(&self) -> usize {
        self.size.width as usize * self.layout.bytes_per_pixel
    }

    pub fn data(&self) -> &[u8] {
        &self.data
    }

    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// The physical rectangle of a logical one.
    pub fn physical(&self, logical: Rect) -> Rect {
        self.rotation.rect(logical, self.logical_size())
    }

    /// Fills a logical rectangle with one colour.
    pub fn fill(&mut self, rect: Rect, colour: Rgb) {
        self.surface().fill(rect, colour);
    }

    /// The colour at a logical position.
    ///
    /// # Panics
    /// If the position lies outside the logical size.
    pub fn pixel(&self, x: u32, y: u32) -> Rgb {
        let at = self.physical(Rect::new(x, y, 1, 1));
        let start = at.y as usize * self.stride() + at.x as usize * self.layout.bytes_per_pixel;
        self.layout.read(&self.data[start..start + self.layout.bytes_per_pixel])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veil_halves_each_channel() {
        for layout in [PixelLayout::XRGB8888, PixelLayout::RGB565] {
            let mut canvas = Canvas::new(Size::new(4, 2), layout, Rotation::None);
            canvas.fill(Rect::new(0, 0, 4, 2), Rgb::WHITE);

            canvas.surface().rows(Rect::new(1, 0, 2, 1)).for_each(|row| layout.veil(row));

            let veiled = canvas.pixel(1, 0);
            assert_eq!(canvas.pixel(0, 0), Rgb::WHITE);
            assert!(veiled.red.abs_diff(127) < 8 && veiled.blue.abs_diff(127) < 8);
            assert_eq!(canvas.pixel(1, 1), Rgb::WHITE);
        }
    }

    #[test]
    fn a_surface_is_no_larger_than_its_memory() {
        let mut bytes = [0; 100];
        let mut fits = |size, stride| Surface::new(size, PixelLayout::XRGB8888, stride, &mut bytes).is_some();

        // The last row needs no padding.
        assert!(fits(Size::new(5, 4), 26) && fits(Size::new(0, 0), 0));
        assert!(!fits(Size::new(5, 4), 27) && !fits(Size::new(5, 4), 19) && !fits(Size::new(5, 6), 20));
    }
}
