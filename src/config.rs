//! The operator's own settings.
