//! what a virtual device is plugged into.
