//! Sizes, rectangles, rotations, and how a picture sits in a tile: CSS `object-fit` in whole numbers,
//! so that every platform places a picture on the same pixels.

use serde::{Deserialize, Serialize};

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Width and height exchanged.
    pub const fn transposed(self) -> Self {
        Self::new(self.height, self.width)
    }

    pub const fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0
    }

    pub const fn area(self) -> u64 {
        self.width as u64 * self.height as u64
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A rectangle of whole pixels; `x` grows to the right, `y` downwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    pub const fn new(x: u32, y: u32, width: u32, height: u32) -> Self {
        Self { x, y, width, height }
    }

    /// The rectangle of this size at the origin.
    pub const fn of(size: Size) -> Self {
        Self::new(0, 0, size.width, size.height)
    }

    pub const fn size(self) -> Size {
        Size::new(self.width, self.height)
    }

    /// The first column right of the rectangle.
    pub const fn right(self) -> u32 {
        self.x + self.width
    }

    /// The first row below the rectangle.
    pub const fn bottom(self) -> u32 {
        self.y + self.height
    }

    pub const fn is_empty(self) -> bool {
        self.size().is_empty()
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.x < other.right() && other.x < self.right() && self.y < other.bottom() && other.y < self.bottom()
    }

    pub fn contains(self, other: Self) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && other.right() <= self.right()
            && other.bottom() <= self.bottom()
    }

    /// What lies in both; empty, and inside of `other` or at its edge, if nothing does.
    pub fn intersection(self, other: Self) -> Self {
        let (x, y) = (self.x.clamp(other.x, other.right()), self.y.clamp(other.y, other.bottom()));
        let end = |own: u32, first: u32, last: u32| own.clamp(first, last) - first;
        let width = end(self.x.saturating_add(self.width), x, other.right());
        Self { x, y, width, height: end(self.y.saturating_add(self.height), y, other.bottom()) }
    }

    /// What is left of it beside `other`: above, below, left, right.
    pub fn without(self, other: Self) -> impl Iterator<Item = Self> {
        let hole = other.intersection(self);
        let whole = [self, Self::of(Size::new(0, 0)), Self::of(Size::new(0, 0)), Self::of(Size::new(0, 0))];
        let around = [
            Self { height: hole.y - self.y, ..self },
            Self { y: hole.bottom(), height: self.bottom() - hole.bottom(), ..self },
            Self { x: self.x, width: hole.x - self.x, ..hole },
            Self { x: hole.right(), width: self.right() - hole.right(), ..hole },
        ];
        let left = if hole.is_empty() { whole } else { around };
        left.into_iter().filter(|rect| !rect.is_empty())
    }
}

/// How a picture fills its tile, with the meaning of CSS `object-fit`
/// (CSS Images Module Level 3, section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Stretched to the tile; the default of `<voip-room>`.
    #[default]
    Fill,
    /// Whole picture, bars beside or above it.
    Contain,
    /// Whole tile, picture cut at two sides.
    Cover,
}

/// A clockwise rotation by quarter turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    #[default]
    None,
    Quarter,
    Half,
    ThreeQuarters,
}

impl Rotation {
    /// From degrees clockwise: 0, 90, 180 or 270.
    pub const fn from_degrees(degrees: u32) -> Option<Self> {
        match degrees {
            0 => Some(Self::None),
            90 => Some(Self::Quarter),
            180 => Some(Self::Half),
            270 => Some(Self::ThreeQuarters),
            _ => None,
        }
    }

    const fn quarters(self) -> u32 {
        self as u32
    }

    /// This rotation followed by `next`.
    pub const fn then(self, next: Self) -> Self {
        match (self.quarters() + next.quarters()) % 4 {
            0 => Self::None,
            1 => Self::Quarter,
            2 => Self::Half,
            _ => Self::ThreeQuarters,
        }
    }

    /// The size of a picture of `size` once it is rotated.
    pub const fn size(self, size: Size) -> Size {
        match self {
            Self::None | Self::Half => size,
            Self::Quarter | Self::ThreeQuarters => size.transposed(),
        }
    }

    /// Where `rect` of a surface of `size` lies once the whole surface is rotated.
    pub const fn rect(self, rect: Rect, size: Size) -> Rect {
        match self {
            Self::None => rect,
            Self::Quarter => Rect::new(size.height - rect.bottom(), rect.x, rect.height, rect.width),
            Self::Half => {
                Rect::new(size.width - rect.right(), size.height - rect.bottom(), rect.width, rect.height)
            }
            Self::ThreeQuarters => Rect::new(rect.y, size.width - rect.right(), rect.height, rect.width),
        }
    }
}

/// How a stored picture is turned before it is placed: mirrored left to right first, then rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    pub mirror: bool,
    pub rotation: Rotation,
}

/// One pixel in the unit of [`Cut`].
pub const ONE_PIXEL: u32 = 1 << 16;

/// The part of a picture that is shown, in 1/65536 pixel: `cover` cuts between pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// What of the picture is shown, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub source: Cut,
    pub target: Rect,
}

/// The largest side of a picture that [`place`] takes.
pub const LARGEST_SIDE: u32 = 16_384;

/// Places `picture` into `area` as CSS `object-fit` with `object-position: 50% 50%` does; sides are
/// rounded to the nearest pixel, a margin that cannot be halved is smaller on the left or top.
///
/// `None` where nothing can be shown: an empty picture or area, or a side above [`LARGEST_SIDE`].
pub fn place(picture: Size, area: Rect, fit: Fit) -> Option<Placement> {
    let too_large = |size: Size| size.width > LARGEST_SIDE || size.height > LARGEST_SIDE;
    if picture.is_empty() || area.is_empty() || too_large(picture) || too_large(area.size()) {
        return None;
    }
    let whole = Cut { x: 0, y: 0, width: picture.width * ONE_PIXEL, height: picture.height * ONE_PIXEL };
    // Both aspect ratios brought to one denominator: wider than the area if left > right.
    let picture_wide = picture.width as u64 * area.height as u64;
    let area_wide = area.width as u64 * picture.height as u64;
    let placement = match fit {
        Fit::Fill => Placement { source: whole, target: area },
        Fit::Contain if picture_wide >= area_wide => {
            let height = rounded(area_wide, picture.width).clamp(1, area.height);
            let y = area.y + (area.height - height) / 2;
            Placement { source: whole, target: Rect { y, height, ..area } }
        }
        Fit::Contain => {
            let width = rounded(picture_wide, picture.height).clamp(1, area.width);
            let x = area.x + (area.width - width) / 2;
            Placement { source: whole, target: Rect { x, width, ..area } }
        }
        Fit::Cover if picture_wide >= area_wide => {
            let width = rounded(area_wide * ONE_PIXEL as u64, area.height).clamp(1, whole.width);
            Placement { source: Cut { x: (whole.width - width) / 2, width, ..whole }, target: area }
        }
        Fit::Cover => {
            let height = rounded(picture_wide * ONE_PIXEL as u64, area.width).clamp(1, whole.height);
            Placement { source: Cut { y: (whole.height - height) / 2, height, ..whole }, target: area }
        }
    };
    Some(placement)
}

/// `numerator / denominator` to the nearest whole number, halves upwards.
fn rounded(numerator: u64, denominator: u32) -> u32 {
    let denominator = denominator as u64;
    u32::try_from((numerator + denominator / 2) / denominator).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VGA: Size = Size::new(640, 480);

    #[test]
    fn contain_shows_the_whole_picture_between_bars() {
        let placement = place(VGA, Rect::new(100, 0, 960, 540), Fit::Contain).expect("placeable");

        assert_eq!(placement.target, Rect::new(220, 0, 720, 540));
        assert_eq!(placement.source.width, 640 * ONE_PIXEL);
    }

    #[test]
    fn cover_fills_the_tile_and_cuts_above_and_below() {
        let placement = place(VGA, Rect::new(0, 0, 960, 540), Fit::Cover).expect("placeable");

        assert_eq!(placement.target, Rect::new(0, 0, 960, 540));
        assert_eq!(
            placement.source,
            Cut { x: 0, y: 60 * ONE_PIXEL, width: 640 * ONE_PIXEL, height: 360 * ONE_PIXEL }
        );
    }

    #[test]
    fn fill_stretches() {
        let placement = place(VGA, Rect::new(3, 5, 7, 9), Fit::Fill).expect("placeable");

        assert_eq!(placement.target, Rect::new(3, 5, 7, 9));
        assert_eq!((placement.source.x, placement.source.height), (0, 480 * ONE_PIXEL));
    }

    #[test]
    fn nothing_is_placed_into_nothing() {
        assert_eq!(place(Size::new(0, 480), Rect::of(VGA), Fit::Fill), None);
        assert_eq!(place(VGA, Rect::new(0, 0, 0, 1), Fit::Cover), None);
    }

    #[test]
    fn four_quarter_turns_bring_a_rectangle_home() {
        let (mut rect, mut size) = (Rect::new(1, 2, 30, 40), Size::new(100, 60));
        for _ in 0..4 {
            rect = Rotation::Quarter.rect(rect, size);
            size = size.transposed();
        }

        assert_eq!(rect, Rect::new(1, 2, 30, 40));
    }

    proptest! {
        #[test]
        fn a_placement_stays_inside_tile_and_picture(
            width in 1..4096u32, height in 1..4096u32,
            x in 0..4096u32, y in 0..4096u32, across in 1..4096u32, down in 1..4096u32,
            fit in prop_oneof![Just(Fit::Fill), Just(Fit::Contain), Just(Fit::Cover)],
        ) {
            let area = Rect::new(x, y, across, down);

            let placement = place(Size::new(width, height), area, fit).expect("nothing is empty");

            prop_assert!(area.contains(placement.target));
            prop_assert!(!placement.target.is_empty());
            prop_assert!(placement.source.x + placement.source.width <= width * ONE_PIXEL);
            prop_assert!(placement.source.y + placement.source.height <= height * ONE_PIXEL);
        }

        #[test]
        fn contain_and_cover_keep_the_aspect_ratio(
            width in 16..4096u32, height in 16..4096u32, across in 16..4096u32, down in 16..4096u32,
        ) {
            for fit in [Fit::Contain, Fit::Cover] {
                let placement = place(Size::new(width, height), Rect::new(0, 0, across, down), fit).expect("nothing is empty");
                let horizontal = placement.target.width as f64 * ONE_PIXEL as f64 / placement.source.width as f64;
                let vertical = placement.target.height as f64 * ONE_PIXEL as f64 / placement.source.height as f64;
                let one_pixel_off = horizontal.max(vertical) / placement.target.width.min(placement.target.height) as f64;

                prop_assert!((horizontal - vertical).abs() <= one_pixel_off + 1e-3);
            }
        }
    }
}
