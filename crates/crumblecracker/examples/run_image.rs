//! Runs a command in an image: `run_image IMAGE COMMAND…`.

use std::io;
use std::sync::Arc;
use std::thread;

use crumblecracker::{Command, Instance, InstanceOptions, Library, Progress, PullOptions, open_backend};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let name = words.next().ok_or("usage: run_image IMAGE COMMAND…")?;
    let nobody_watches: Arc<dyn Progress> = Arc::new(());
    let library = Library::open(None)?;
    let image = library.image(&name, &PullOptions::default(), &nobody_watches)?;
    let backend = open_backend(None, &library)?;
    let instance = Instance::start(&library, &image, backend, &InstanceOptions::default(), &())?;
    let mut process = instance.spawn(&Command {
        arguments: words.collect(),
        ..Command::default()
    })?;
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| stdout.map(|mut output| io::copy(&mut output, &mut io::stdout())));
        scope.spawn(|| stderr.map(|mut output| io::copy(&mut output, &mut io::stderr())));
    });
    let status = process.wait()?;
    std::process::exit(status.code().into());
}
