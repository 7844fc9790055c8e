//! Half the width and half the height of a picture: each sample is the mean of four.

use super::frame::Frame;

/// Writes `from`, halved, to `to`, whose sides are at most half of it: what is odd at the right and at the foot is cut
/// off. Colour and time are those of `from`.
///
/// # Panics
/// If `to` is larger than half of `from`.
pub fn halve(from: &Frame, to: &mut Frame) {
    (to.colour, to.captured) = (from.colour, from.captured);
    let widths = |frame: &Frame| {
        let width = frame.size().width as usize;
        [width, width / 2, width / 2]
    };
    let (from_widths, to_widths) = (widths(from), widths(to));
    for (plane, to) in to.planes_mut().into_iter().enumerate() {
        let pairs_of_rows = from.planes()[plane].chunks_exact(2 * from_widths[plane]);
        let rows = to.chunks_exact_mut(to_widths[plane]);
        assert!(
            rows.len() <= pairs_of_rows.len() && 2 * to_widths[plane] <= from_widths[plane],
            "half at most"
        );
        for (row, pair) in rows.zip(pairs_of_rows) {
            let (upper, lower) = pair.split_at(from_widths[plane]);
            halve_row(upper, lower, row);
        }
    }
}

/// The mean of each square of four, halves upwards.
fn halve_row(upper: &[u8], lower: &[u8], to: &mut [u8]) {
    let squares = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
    for (to, (upper, lower)) in to.iter_mut().zip(squares) {
        let sum: u16 = [upper[0], upper[1], lower[0], lower[1]].into_iter().map(u16::from).sum();
        *to = ((sum + 2) / 4) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use std::time::Duration;

    #[test]
    fn each_sample_is_the_mean_of_its_square() {
        let mut from = Frame::new(Size::new(8, 4));
        from.captured = Duration::from_secs(3);
        for (index, value) in from.planes_mut()[0].iter_mut().enumerate() {
            *value = index as u8;
        }
        from.planes_mut()[2].copy_from_slice(&[0, 1, 255, 255, 0, 0, 255, 254]);
        let mut to = Frame::new(Size::new(4, 2));

        halve(&from, &mut to);

        // 0, 1, 8 and 9 are 4.5 in the mean.
        assert_eq!(to.planes()[0], [5, 7, 9, 11, 21, 23, 25, 27]);
        assert_eq!((to.planes()[1], to.planes()[2]), (&[128, 128][..], &[0, 255][..]));
        assert_eq!(to.captured, from.captured);
    }

    #[test]
    fn what_is_odd_is_cut_off() {
        for size in [Size::new(322, 242), Size::new(854, 480), Size::new(1024, 602), Size::new(6, 6)] {
            let mut from = Frame::new(size);
            from.planes_mut()[0].fill(77);
            let mut to = Frame::new(Size::new(size.width / 2, size.height / 2));

            halve(&from, &mut to);

            assert!(to.planes()[0].iter().all(|value| *value == 77), "{size}");
            assert!(to.planes()[1].iter().all(|value| *value == 128), "{size}");
        }
    }
}
