//! Bad input and an API in trouble: said, bounded, and overcome.
