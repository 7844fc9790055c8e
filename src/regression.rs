//! A straight line through what was measured.

use serde::Serialize;

/// `base + slope * n`, by least squares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub base: f64,
    pub slope: f64,
    /// How far each point is above the line.
    pub residuals: Vec<f64>,
    /// The largest of them without its sign, as a part of the line's value there.
    pub worst: f64,
    /// How far the places lie apart: the sum of the squares of their distances from their mean.
    #[serde(skip)]
    pub spread: f64,
}

impl Line {
    /// `None` of fewer than three points, or all at one place.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        if points.len() < 3 || spread <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
        let base = y - slope * x;
        let at = |n: f64| base + slope * n;
        let residuals = points.iter().map(|(n, value)| value - at(*n)).collect();
        let parts = points.iter().map(|(n, value)| ((value - at(*n)) / at(*n)).abs());
        Some(Self { base, slope, residuals, worst: parts.fold(0.0, f64::max), spread })
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4} + {:.4} n, residuals", self.base, self.slope)?;
        for residual in &self.residuals {
            write!(f, " {residual:+.4}")?;
        }
        write!(f, ", worst {:.1} %", 100.0 * self.worst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again_and_what_is_off_it_is_named() {
        let exact = Line::through(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).expect("a line");
        assert!((exact.base - 3.0).abs() < 1e-9 && (exact.slope - 2.0).abs() < 1e-9 && exact.worst < 1e-9);

        let bent = Line::through(&[(0.0, 1.0), (1.0, 1.0), (2.0, 4.0)]).expect("a line");
        assert!((bent.base - 0.5).abs() < 1e-9 && (bent.slope - 1.5).abs() < 1e-9);
        assert!((bent.residuals[1] + 1.0).abs() < 1e-9 && (bent.worst - 1.0).abs() < 1e-9, "{bent}");
    }

    #[test]
    fn two_points_or_one_place_make_no_line() {
        assert_eq!(Line::through(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(Line::through(&[(1.0, 1.0); 3]), None);
    }
}
