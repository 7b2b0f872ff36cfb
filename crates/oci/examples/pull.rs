//! Pulls an image, or takes one in from a file, and prints what became of it:
//! `pull STORE IMAGE [INSECURE_REGISTRY...]`.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use oci::{Platform, Puller, Source, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(image)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull STORE IMAGE [INSECURE_REGISTRY...]".into());
    };
    let store = Store::open(Path::new(&folder))?;
    let start = Instant::now();
    let image = match Source::is_meant(&image) {
        true => store.import(&image.parse()?, &Platform::host(), &())?,
        false => Puller::new(store)
            .insecure_registries(arguments.collect())
            .pull(&image.parse()?)?,
    };
    let pulled = start.elapsed();
    let start = Instant::now();
    let index = image.open_index()?;
    println!(
        "{} {} files, pulled in {pulled:?}, opened in {:?}",
        image.id(),
        index.max_ino(),
        start.elapsed()
    );
    Ok(())
}
