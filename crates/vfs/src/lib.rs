//! the FUSE server and its composable trees.
