//! What the parts of a turn are.
