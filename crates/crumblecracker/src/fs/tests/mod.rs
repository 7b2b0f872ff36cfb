//! The files of the guest program run as init of a container, and those of guests that lie.

mod guests;
mod honest;
mod hostile;
