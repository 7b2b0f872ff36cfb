//! run OCI images as microVMs.
