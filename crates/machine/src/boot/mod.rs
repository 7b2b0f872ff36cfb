//! The kernel loader: from a kernel file to a CPU about to execute its first instruction.

mod command_line;
mod elf;
mod kernel_image;
mod linux;

pub use command_line::CommandLine;
pub use kernel_image::{KernelImageError, unpack_kernel};
pub(crate) use linux::{EntryPoint, GDT, LinuxBoot, load_linux};
