//! Killed and stopped at the worst moments: one start all the same.
