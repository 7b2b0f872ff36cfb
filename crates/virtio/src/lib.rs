//! virtqueues, transports and virtio devices.
