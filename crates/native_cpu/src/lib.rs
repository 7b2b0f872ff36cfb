//! hardware virtualization behind one open().
