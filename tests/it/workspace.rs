//! From a Secret to a checked connection, and back when it breaks.
