//! the guest's first process and agent, and the initramfs it travels in.
