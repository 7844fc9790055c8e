//! The picture of the whole screen in memory, in the framebuffer's own pixel layout.

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
    pub fn pack(&self, colour: Rgb) -> u32 {
        let put = |value: u8, channel: Channel| u32::from(value >> (8 - channel.length)) << channel.offset;
        put(colour.red, self.red) | put(colour.green, self.green) | put(colour.blue, self.blue)
    }

    /// The colour of a pixel value, missing low bits filled with the channel's own upper bits, as displays do.
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

/// All pixels of the screen, physical orientation, rows without padding.
#[derive(Clone, Debug)]
pub struct Canvas {
    size: Size,
    layout: PixelLayout,
    rotation: Rotation,
    data: Vec<u8>,
}

impl Canvas {
    /// A black canvas of the screen's physical `size`; `rotation` turns what is drawn in logical
    /// coordinates (upright for the viewer) clockwise onto it.
    pub fn new(size: Size, layout: PixelLayout, rotation: Rotation) -> Self {
        let bytes = size.area() as usize * layout.bytes_per_pixel;
        Self { size, layout, rotation, data: vec![0; bytes] }
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
}

/// Looking at pixels and copying them.
impl Canvas {
    /// The colour at a logical position.
    ///
    /// # Panics
    /// If the position lies outside the logical size.
    pub fn pixel(&self, x: u32, y: u32) -> Rgb {
        let at = self.physical(Rect::new(x, y, 1, 1));
        let bytes = self.layout.bytes_per_pixel;
        let start = at.y as usize * self.stride() + at.x as usize * bytes;
        let mut pixel = [0; 4];
        pixel[..bytes].copy_from_slice(&self.data[start..start + bytes]);
        self.layout.unpack(u32::from_le_bytes(pixel))
    }

    /// Takes over the physical rectangles `changed` of another canvas of the same size and layout; what lies
    /// outside is passed over.
    pub fn copy_rects(&mut self, other: &Canvas, changed: &[Rect]) {
        let (stride, bytes) = (self.stride(), self.layout.bytes_per_pixel);
        if other.size != self.size || other.layout != self.layout {
            return;
        }
        for rect in changed {
            let (left, right) = (rect.x.min(self.size.width), rect.right().min(self.size.width));
            for y in rect.y..rect.bottom().min(self.size.height) {
                let row = y as usize * stride;
                let span = row + left as usize * bytes..row + right as usize * bytes;
                self.data[span.clone()].copy_from_slice(&other.data[span]);
            }
        }
    }
}
