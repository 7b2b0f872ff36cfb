//! the bytes of the host-to-guest control channel.
