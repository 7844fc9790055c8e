//! A camera that draws its frame number.
