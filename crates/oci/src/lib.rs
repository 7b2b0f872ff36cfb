//! OCI images: references, registries, content store, layer index; Debian packages as images.
