//! the traits every CPU backend implements, and their conformance suite.
