//! A screen in memory.
