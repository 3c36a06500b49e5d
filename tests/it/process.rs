//! The process around the controllers: health, logs, shutdown.
