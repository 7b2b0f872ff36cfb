//! guest RAM as a cloneable handle.
