//! Where the tiles lie: never over one another, never outside the screen.

use super::document::Layout;
use crate::geometry::{Fit, Rect, Size, place};

/// The picture a tile is made for; most cameras are 4:3 or are cut to it with little loss.
const PICTURE: Size = Size::new(640, 480);

/// The areas of `count` tiles on a screen, in order; the first is the one that is large where one is.
///
/// The same count on the same screen gives the same areas: a tile does not move because a picture changed. On a screen
/// with fewer pixels than tiles some areas are empty.
pub fn arrange(layout: Layout, screen: Size, count: usize) -> Vec<Rect> {
    match layout {
        Layout::Grid => grid(Rect::of(screen), count),
        Layout::Speaker | Layout::Pip => speaker(screen, count),
    }
}

/// Rows and columns chosen so that the pictures come out largest; the last row is centred, so all tiles are equal
/// and none is stretched more than another.
fn grid(area: Rect, count: usize) -> Vec<Rect> {
    let Some(columns) = (1..=count).max_by_key(|&columns| {
        // Of equally large pictures the grid with fewer empty places is chosen, then the wider one.
        let empty = count.div_ceil(columns) * columns - count;
        (picture_area(area, count, columns), std::cmp::Reverse(empty), columns)
    }) else {
        return Vec::new();
    };
    let rows = count.div_ceil(columns);
    (0..count)
        .map(|index| {
            let (row, column) = (index / columns, index % columns);
            let (top, bottom) = (edge(area.height, row, rows), edge(area.height, row + 1, rows));
            let in_row = (count - row * columns).min(columns);
            let (left, right) = if in_row == columns {
                (edge(area.width, column, columns), edge(area.width, column + 1, columns))
            } else {
                let width = area.width / columns as u32;
                let margin = (area.width - width * in_row as u32) / 2;
                (margin + width * column as u32, margin + width * (column as u32 + 1))
            };
            Rect::new(area.x + left, area.y + top, right - left, bottom - top)
        })
        .collect()
}

/// The first tile large, the others in a strip along the right side, or along the foot of an upright screen.
fn speaker(screen: Size, count: usize) -> Vec<Rect> {
    if count < 2 {
        return grid(Rect::of(screen), count);
    }
    let (large, strip) = if screen.width >= screen.height {
        let width = screen.width - screen.width / 4;
        (Rect::new(0, 0, width, screen.height), Rect::new(width, 0, screen.width - width, screen.height))
    } else {
        let height = screen.height - screen.height / 4;
        (Rect::new(0, 0, screen.width, height), Rect::new(0, height, screen.width, screen.height - height))
    };
    std::iter::once(large).chain(grid(strip, count - 1)).collect()
}

/// How many pixels an undistorted picture covers in each tile.
fn picture_area(area: Rect, count: usize, columns: usize) -> u64 {
    let rows = count.div_ceil(columns);
    let tile = Rect::new(0, 0, area.width / columns as u32, area.height / rows as u32);
    place(PICTURE, tile, Fit::Contain).map_or(0, |placement| placement.target.size().area())
}

/// Where the `index`-th of `parts` equal parts of a side begins.
fn edge(side: u32, index: usize, parts: usize) -> u32 {
    (side as u64 * index as u64 / parts as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HD: Size = Size::new(1920, 1080);

    #[test]
    fn four_tiles_on_a_wide_screen_are_two_by_two() {
        assert_eq!(
            drawn(Layout::Grid, Size::new(16, 8), 4),
            "\
            aaaaaaaabbbbbbbb\naaaaaaaabbbbbbbb\naaaaaaaabbbbbbbb\naaaaaaaabbbbbbbb\n\
            ccccccccdddddddd\nccccccccdddddddd\nccccccccdddddddd\nccccccccdddddddd\n"
        );
    }

    #[test]
    fn the_last_row_is_centred() {
        assert_eq!(
            drawn(Layout::Grid, Size::new(8, 6), 3),
            "\
            aaaabbbb\naaaabbbb\naaaabbbb\n\
            ..cccc..\n..cccc..\n..cccc..\n"
        );
    }

    #[test]
    fn two_tiles_lie_side_by_side_or_on_an_upright_screen_one_above_the_other() {
        assert_eq!(arrange(Layout::Grid, HD, 2), [Rect::new(0, 0, 960, 1080), Rect::new(960, 0, 960, 1080)]);
        assert_eq!(
            arrange(Layout::Grid, HD.transposed(), 2),
            [Rect::new(0, 0, 1080, 960), Rect::new(0, 960, 1080, 960)]
        );
    }

    #[test]
    fn the_speaker_is_large_beside_a_strip() {
        assert_eq!(
            drawn(Layout::Speaker, Size::new(16, 4), 3),
            "\
            aaaaaaaaaaaabbbb\naaaaaaaaaaaabbbb\naaaaaaaaaaaacccc\naaaaaaaaaaaacccc\n"
        );
    }

    #[test]
    fn no_tile_needs_no_place() {
        assert_eq!(arrange(Layout::Grid, HD, 0), []);
        assert_eq!(arrange(Layout::Pip, HD, 0), []);
        assert_eq!(arrange(Layout::Speaker, HD, 1), [Rect::of(HD)]);
    }

    proptest! {
        #[test]
        fn tiles_never_overlap_nor_leave_the_screen(
            width in 0..4096u32, height in 0..4096u32, count in 0..=16usize,
            layout in prop_oneof![Just(Layout::Grid), Just(Layout::Speaker), Just(Layout::Pip)],
        ) {
            let screen = Size::new(width, height);

            let areas = arrange(layout, screen, count);

            prop_assert_eq!(areas.len(), count);
            for (index, area) in areas.iter().enumerate() {
                prop_assert!(Rect::of(screen).contains(*area));
                prop_assert!(width < 64 || height < 64 || !area.is_empty());
                prop_assert!(areas[..index].iter().all(|other| !other.overlaps(*area)));
            }
        }

        #[test]
        fn no_other_grid_shows_larger_pictures(width in 64..4096u32, height in 64..4096u32, count in 1..=16usize) {
            let screen = Rect::new(0, 0, width, height);

            let tile = grid(screen, count)[0];

            let shown = place(PICTURE, tile, Fit::Contain).map_or(0, |placed| placed.target.size().area());
            for columns in 1..=count {
                prop_assert!(shown >= picture_area(screen, count, columns));
            }
        }

        #[test]
        fn full_rows_and_all_rows_together_use_the_whole_screen(
            width in 64..4096u32, height in 64..4096u32, count in 1..=16usize,
        ) {
            let areas = arrange(Layout::Grid, Size::new(width, height), count);

            let first_row: Vec<_> = areas.iter().filter(|area| area.y == 0).collect();
            prop_assert_eq!(first_row.iter().map(|area| area.width).sum::<u32>(), width);
            prop_assert_eq!(areas.last().map(|area| area.bottom()), Some(height));
        }
    }

    /// The screen as text, a letter a tile.
    fn drawn(layout: Layout, screen: Size, count: usize) -> String {
        let areas = arrange(layout, screen, count);
        let tile_at = |x, y| areas.iter().position(|area| area.contains(Rect::new(x, y, 1, 1)));
        let mut text = String::new();
        for y in 0..screen.height {
            text.extend(
                (0..screen.width).map(|x| tile_at(x, y).map_or('.', |tile| (b'a' + tile as u8) as char)),
            );
            text.push('\n');
        }
        text
    }
}
