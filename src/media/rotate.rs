//! Turns a picture by quarter turns, so that it is upright for everybody who gets it.

use super::frame::Frame;
use crate::geometry::{Rotation, Size};

/// Writes `from`, turned clockwise, into `into`, which takes the turned size, the colour and the time.
pub fn rotate(from: &Frame, rotation: Rotation, into: &mut Frame) {
    let size = from.size();
    into.resize(rotation.size(size));
    into.colour = from.colour;
    into.captured = from.captured;
    let chroma = Size::new(size.width / 2, size.height / 2);
    for ((plane, turned), size) in
        from.planes().into_iter().zip(into.planes_mut()).zip([size, chroma, chroma])
    {
        turn(plane, size, rotation, turned);
    }
}

fn turn(plane: &[u8], size: Size, rotation: Rotation, turned: &mut [u8]) {
    let (width, height) = (size.width as usize, size.height as usize);
    match rotation {
        Rotation::None => turned.copy_from_slice(plane),
        Rotation::Half => {
            turned.copy_from_slice(plane);
            turned.reverse();
        }
        Rotation::Quarter => {
            for (x, row) in turned.chunks_exact_mut(height).enumerate() {
                for (pixel, source) in row.iter_mut().rev().zip(plane.chunks_exact(width)) {
                    *pixel = source[x];
                }
            }
        }
        Rotation::ThreeQuarters => {
            for (x, row) in turned.chunks_exact_mut(height).rev().enumerate() {
                for (pixel, source) in row.iter_mut().zip(plane.chunks_exact(width)) {
                    *pixel = source[x];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 4x2 picture with a different luma for each pixel.
    fn counted() -> Frame {
        let mut frame = Frame::new(Size::new(4, 2));
        frame.planes_mut()[0].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        frame
    }

    #[test]
    fn a_quarter_turn_brings_the_left_column_to_the_top() {
        let mut turned = Frame::new(Size::new(2, 2));
        rotate(&counted(), Rotation::Quarter, &mut turned);

        assert_eq!(turned.size(), Size::new(2, 4));
        assert_eq!(turned.planes()[0], [5, 1, 6, 2, 7, 3, 8, 4]);
    }

    #[test]
    fn turns_add_up() {
        let (mut once, mut twice, mut half) = (counted(), counted(), counted());
        rotate(&counted(), Rotation::Quarter, &mut once);
        rotate(&once, Rotation::Quarter, &mut twice);
        rotate(&counted(), Rotation::Half, &mut half);
        assert_eq!(twice.planes(), half.planes());

        let mut three = counted();
        rotate(&once, Rotation::Half, &mut three);
        rotate(&counted(), Rotation::ThreeQuarters, &mut half);
        assert_eq!(three.planes(), half.planes());
    }
}
