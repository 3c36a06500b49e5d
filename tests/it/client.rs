//! The client against every endpoint, and every kind of trouble.
