//! Where the tiles lie.
