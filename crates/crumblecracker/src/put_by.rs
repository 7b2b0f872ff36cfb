//! Running guests put by and taken up: everything that an instance is beside its machine.
//!
//! Programs in the guest go on where they were: RAM, CPUs and devices are the machine's units; files they have open and
//! what they changed are the file systems'; the streams of commands are the session's. No path of the host is
//! inside: shares are found by where they are in the guest, and whoever takes the guest up says what they are.

use std::sync::{Arc, Mutex, PoisonError};

use guest_protocol::ToGuest;
use hypervisor::Hypervisor;
use machine::{Machine, MachineConfig};
use saved_state::{Snapshot, Unit, record};

use crate::bring_up::{self, SavedHello};
use crate::instance::{self, Served};
use crate::renewal;
use crate::saved_guests::SavedGuests;
use crate::session::{Process, Session};
use crate::snapshot_cache::{Filling, Lent};
use crate::{ConsoleSink, Error, Image, Instance, Library, Result, Share, Timeline};

/// The unit of the instance itself, of its session, and what the units of file systems begin with.
const INSTANCE: &str = "session-instance";
const SESSION: &str = "session-channel";
const FILE_SYSTEM: &str = "session-fs-";
/// The file with the contents of files that were changed.
const CONTENTS: &str = "files";
const SCHEMA: u16 = 1;

record! {
    /// [`Instance`].
    struct SavedInstance {
        1 image: String,
        2 image_id: String,
        3 hostname: String,
        4 memory_mib: u64,
        5 vcpus: u32,
        6 shares: Vec<SavedShare>,
    }
}

record! {
    /// A share, as the guest sees it.
    struct SavedShare {
        1 guest: String,
        2 read_only: bool,
    }
}

/// How a guest is taken up.
#[derive(Clone, Default)]
pub struct TakeUpOptions {
    /// What its shares are now, told apart by where they are in the guest: all that it had, and no others.
    pub shares: Vec<Share>,
    /// A new name, in place of the one it has.
    pub hostname: Option<String>,
    /// Whether it gets a machine id (machine-id(5)) of its own.
    pub new_machine_id: bool,
    /// Who hears the guest's kernel.
    pub console: Option<ConsoleSink>,
    /// Where it is noted when what happened.
    pub timeline: Timeline,
}

impl Instance {
    /// Puts this guest by under `name` as it is now, and lets it go on. It stands still meanwhile.
    ///
    /// # Errors
    /// A name that is taken or impossible, a full disk, a guest that is gone; nothing is left behind then.
    pub fn save(&self, saved: &SavedGuests, name: &str) -> Result<()> {
        let mut filling = saved.begin(name, self.machine.identity())?;
        self.write_paused(&mut filling)?;
        filling.finish()
    }

    /// Puts this guest by under a name that nobody gave, for as long as what is returned lives.
    pub(crate) fn lend(&self, forked: &SavedGuests) -> Result<Lent> {
        let mut filling = forked.begin_unnamed(self.machine.identity())?;
        self.write_paused(&mut filling)?;
        filling.lend()
    }

    fn write_paused(&self, filling: &mut Filling) -> Result<()> {
        // The machine of one would go on under the other's hands.
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing it down touches pages that the guest does not.
        if let Some(head_start) = &self.head_start {
            head_start.end_watch();
        }
        // So that no command runs in a guest taken up before that has its name, clock and seed.
        self.session.request(ToGuest::Freeze)?;
        self.machine.pause()?;
        let written = self.write(filling);
        self.machine.resume()?;
        self.session.request(ToGuest::Thaw)?;
        written
    }

    fn write(&self, filling: &mut Filling) -> Result<()> {
        let writer = &mut filling.writer;
        self.machine.capture(writer)?;
        writer.unit(SESSION, &self.session.save()?);
        writer.unit(bring_up::HELLO, &SavedHello::from(&self.hello).unit());
        let mut units = Vec::new();
        let mut contents = writer.file(CONTENTS)?;
        for Served { tag, server } in &self.served {
            units.push((format!("{FILE_SYSTEM}{tag}"), server.save(&mut contents)?));
        }
        for (name, unit) in units {
            writer.unit(&name, &unit);
        }
        let config = self.machine.config();
        let share = |share: &Share| SavedShare {
            guest: share.guest.clone(),
            read_only: share.read_only,
        };
        let instance = SavedInstance {
            image: self.image.name().to_owned(),
            image_id: self.image.id(),
            hostname: self.hostname.clone(),
            memory_mib: config.memory_mib,
            vcpus: config.vcpus,
            shares: self.shares.iter().map(share).collect(),
        };
        writer.unit(INSTANCE, &Unit::new(SCHEMA, &instance));
        Ok(())
    }

    /// Takes up the guest that was put by under `name` in `saved`, as often as wanted: each is a guest of its own. One with a
    /// named CPU profile goes on under any backend that can show it, one with the host's only where it was put by. Gives the
    /// processes that were started by [`Instance::spawn`] and run in it, in that order; what they write waits for whoever
    /// reads it.
    ///
    /// # Errors
    /// [`Error::NoSavedGuest`]; one that is damaged, or of another machine; an image that is not here any more; shares
    /// that are not those it had.
    pub fn take_up(
        saved: &SavedGuests,
        name: &str,
        hypervisor: Arc<dyn Hypervisor>,
        options: &TakeUpOptions,
    ) -> Result<(Self, Vec<Process>)> {
        let snapshot = saved.open(name)?;
        let of: SavedInstance = snapshot.load(INSTANCE, |unit| unit.decode(SCHEMA))?;
        let hello = SavedHello::load(&snapshot)?;
        let image = image_of(saved.library(), &of)?;
        let shares = matched(&of.shares, &options.shares)?;
        let (root, served, _) = instance::serve(&image, &of.hostname, &shares)?;
        let file_systems = served.iter().map(Served::file_system).collect();
        let config = MachineConfig {
            memory_mib: of.memory_mib,
            vcpus: of.vcpus,
            cpu: machine::profile_in(&snapshot)?,
        };
        let (backends, ends) = bring_up::plug_all(hypervisor, file_systems, &options.timeline);
        options.timeline.mark("snapshot opened");
        let machine = Machine::restore(&config, &snapshot, backends)?;
        options.timeline.mark("guest restored");
        restore_files(&snapshot, &served)?;
        let hostname = options.hostname.as_ref().unwrap_or(&of.hostname);
        let (console, control) = bring_up::follow(ends, &machine, options.console.as_ref())?;
        let (session, processes) = Session::resume(control, &snapshot.unit(SESSION)?, &options.timeline)?;
        let head_start = match saved.head_start(name)? {
            Some(head_start) => head_start.give(&machine, &options.timeline)?,
            None => None,
        };
        machine.resume()?;
        options.timeline.mark("guest runs, restored");
        session.configure(&hello, bring_up::configuration(hostname)?)?;
        options.timeline.mark("guest configured");
        let instance = Self {
            machine,
            session,
            accounts: instance::accounts(&root),
            image,
            console,
            timeline: options.timeline.clone(),
            keeping: None,
            head_start,
            hello,
            served,
            hostname: hostname.clone(),
            shares,
            saving: Mutex::default(),
        };
        if instance.hostname != of.hostname {
            renewal::rename(&instance.fs(), &of.hostname, &instance.hostname)?;
        }
        if options.new_machine_id {
            renewal::new_machine_id(&instance.fs())?;
        }
        instance.session.request(ToGuest::Thaw)?;
        Ok((instance, processes))
    }
}

/// The image that the guest runs from: the very same, as inode numbers are its own, whatever its name means by now.
fn image_of(library: &Library, saved: &SavedInstance) -> Result<Image> {
    let gone = || Error::SavedGuestImage {
        name: saved.image.clone(),
        id: saved.image_id.clone(),
    };
    let id = saved.image_id.parse().map_err(|_| gone())?;
    library.image_by_id(&saved.image, &id)?.ok_or_else(gone)
}

/// The shares a guest had, in its order, from those that are given.
fn matched(saved: &[SavedShare], given: &[Share]) -> Result<Vec<Share>> {
    let extra = given
        .iter()
        .find(|share| !saved.iter().any(|saved| saved.guest == share.guest));
    if let Some(extra) = extra {
        return Err(Error::SavedGuestShare {
            guest: extra.guest.clone(),
            what: "was not shared",
        });
    }
    let find = |saved: &SavedShare| {
        let share = given.iter().find(|share| share.guest == saved.guest);
        let wrong = |what| Error::SavedGuestShare {
            guest: saved.guest.clone(),
            what,
        };
        match share {
            None => Err(wrong("was shared, and nothing is given for it")),
            Some(share) if share.read_only && !saved.read_only => Err(wrong("could be written")),
            Some(share) if !share.read_only && saved.read_only => Err(wrong("could only be read")),
            Some(share) => Ok(share.clone()),
        }
    };
    saved.iter().map(find).collect()
}

fn restore_files(snapshot: &Snapshot, served: &[Served]) -> Result<()> {
    let mut contents = snapshot.file(CONTENTS)?;
    for Served { tag, server } in served {
        server.restore(&snapshot.unit(&format!("{FILE_SYSTEM}{tag}"))?, &mut contents)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(guest: &str, read_only: bool) -> Share {
        Share {
            host: "/somewhere".into(),
            guest: guest.to_owned(),
            read_only,
        }
    }

    fn saved(guest: &str, read_only: bool) -> SavedShare {
        SavedShare {
            guest: guest.to_owned(),
            read_only,
        }
    }

    #[test]
    fn shares_come_in_the_order_the_guest_knows() {
        let had = [saved("/a", false), saved("/b", true)];

        let matched = matched(&had, &[share("/b", true), share("/a", false)]).unwrap();

        let guests: Vec<_> = matched.iter().map(|share| share.guest.as_str()).collect();
        assert_eq!(guests, ["/a", "/b"]);
    }

    #[test]
    fn shares_that_are_missing_or_new_or_of_other_rights_are_refused() {
        let had = [saved("/a", false)];
        let given: [&[Share]; 3] = [
            &[],
            &[share("/a", true)],
            &[share("/a", false), share("/c", false)],
        ];
        for given in given {
            let error = matched(&had, given).unwrap_err();
            assert!(matches!(error, Error::SavedGuestShare { .. }), "{error}");
        }
    }
}
