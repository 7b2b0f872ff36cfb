//! A running guest with an image as its root.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest_protocol::{Exec, Hello, Mount, MountRoot, Shutdown, Stdio, ToGuest};
use hypervisor::Hypervisor;
use hypervisor::x86_64::CpuProfile;
use machine::{FileSystem, Machine, MachineHandle};
use oci::debian::Refresh;
use serde::{Deserialize, Serialize};
use tracing::debug;
use vfs::{HostShare, HostShareOptions, Overlay, OverlayOptions, Server};

use crate::bring_up::{Guest, Keeping};
use crate::console::{ConsoleLog, ConsoleSink};
use crate::fs::Fs;
use crate::head_start::HeadStart;
use crate::image_tree::ImageTree;
use crate::post_mortem::PostMortem;
use crate::renewal;
use crate::session::{Process, Session};
use crate::user::{Accounts, Credentials};
use crate::{Error, Image, KernelChoice, Library, Profiler, Result, Timeline};

/// The most that is read of an image's passwd and group.
const ACCOUNTS_MAX: u64 = 4 << 20;
/// virtio-fs tag of the root.
const ROOT_TAG: &str = "root";

/// A folder or file of the host inside the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// On the host.
    pub host: PathBuf,
    /// Absolute path in the guest.
    pub guest: String,
    /// Whether the guest can change nothing.
    pub read_only: bool,
}

/// How a guest is made.
#[derive(Clone)]
pub struct InstanceOptions {
    /// RAM in MiB.
    pub memory_mib: u64,
    /// Number of CPUs.
    pub vcpus: u32,
    /// What they show of themselves: all of the host's, or what is the same everywhere.
    pub cpu: CpuProfile,
    /// Name of the guest.
    pub hostname: String,
    /// Folders of the host.
    pub shares: Vec<Share>,
    /// What boots.
    pub kernel: KernelChoice,
    /// Whether the network may be asked for a kernel.
    pub refresh: Refresh,
    /// Whether the kernel tells everything, and who hears it.
    pub console: Option<ConsoleSink>,
    /// How long the boot may take.
    pub boot_deadline: Duration,
    /// What gathers where its time goes, to be told which kernel boots; the backend has it as well.
    pub profiler: Option<Profiler>,
    /// Whether the guest may come from a snapshot of one that has booted, and leave one.
    pub snapshots: bool,
    /// Where it is noted when what happened.
    pub timeline: Timeline,
}

impl Default for InstanceOptions {
    /// 512 MiB, one CPU as the host's, Debian's kernel, a minute to boot.
    fn default() -> Self {
        Self {
            memory_mib: 512,
            vcpus: 1,
            cpu: CpuProfile::Host,
            hostname: "crumble".to_owned(),
            shares: Vec::new(),
            kernel: KernelChoice::Debian,
            refresh: Refresh::WhenStale,
            console: None,
            boot_deadline: Duration::from_secs(60),
            profiler: None,
            snapshots: true,
            timeline: Timeline::default(),
        }
    }
}

/// A command to run in a guest, beside what the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments in place of the image's entrypoint; empty string means none.
    pub entrypoint: Option<String>,
    /// Arguments in place of the image's command.
    pub arguments: Vec<String>,
    /// `NAME=value`, after the image's.
    pub env: Vec<String>,
    /// In place of the image's working directory.
    pub working_dir: Option<String>,
    /// `user[:group]` in place of the image's.
    pub user: Option<String>,
    /// A terminal of this many rows and columns.
    pub terminal: Option<(u16, u16)>,
    /// Whether standard input is a stream.
    pub stdin: bool,
}

impl Command {
    /// Whether it has no words of its own, and is what the image says.
    pub fn names_nothing(&self) -> bool {
        self.entrypoint.is_none() && self.arguments.is_empty()
    }
}

/// A running guest. Dropping it ends it at once; [`Instance::shutdown`] lets it end in order.
pub struct Instance {
    pub(crate) machine: Machine,
    pub(crate) session: Session,
    pub(crate) image: Image,
    pub(crate) accounts: Accounts,
    pub(crate) console: ConsoleLog,
    pub(crate) timeline: Timeline,
    /// Ends after the machine.
    pub(crate) keeping: Option<Keeping>,
    pub(crate) head_start: Option<HeadStart>,
    /// What the guest program said of itself.
    pub(crate) hello: Hello,
    /// Its file systems, the root first.
    pub(crate) served: Vec<Served>,
    pub(crate) hostname: String,
    pub(crate) shares: Vec<Share>,
    /// Held by who puts the guest by.
    pub(crate) saving: Mutex<()>,
}

/// A file system of a guest.
pub(crate) struct Served {
    pub(crate) tag: String,
    pub(crate) server: Arc<Server>,
}

impl Served {
    pub(crate) fn file_system(&self) -> FileSystem {
        FileSystem {
            tag: self.tag.clone(),
            service: self.server.clone(),
        }
    }
}

impl Instance {
    /// Boots a guest, mounts `image` as its root and the shares inside.
    ///
    /// # Errors
    /// Everything from a missing kernel to a guest that does not come up; nothing is left behind.
    pub fn start(
        library: &Library,
        image: &Image,
        hypervisor: Arc<dyn Hypervisor>,
        options: &InstanceOptions,
        progress: &dyn oci::Progress,
    ) -> Result<Self> {
        let (root, served, mounts) = serve(image, &options.hostname, &options.shares)?;
        let accounts = accounts(&root);
        let file_systems = served.iter().map(Served::file_system).collect();
        let Guest {
            machine,
            session,
            console,
            keeping,
            head_start,
            hello,
        } = Guest::bring_up(library, hypervisor, file_systems, options, progress)?;
        session.request(ToGuest::MountRoot(MountRoot {
            tag: ROOT_TAG.into(),
            read_only: false,
        }))?;
        for mount in mounts {
            session.request(ToGuest::Mount(mount))?;
        }
        options.timeline.mark("root attached");
        Ok(Self {
            machine,
            session,
            image: image.clone(),
            accounts,
            console,
            timeline: options.timeline.clone(),
            keeping,
            head_start,
            hello,
            served,
            hostname: options.hostname.clone(),
            shares: options.shares.clone(),
            saving: Mutex::default(),
        })
    }

    /// Starts a command.
    ///
    /// # Errors
    /// [`Error::NoCommand`], [`Error::NoUser`], [`Error::Request`], [`Error::GuestGone`].
    pub fn spawn(&self, command: &Command) -> Result<Process> {
        self.session.exec(self.exec_of(command)?, &self.timeline)
    }

    /// What it was made of.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The name of the backend that executes it.
    pub fn backend(&self) -> &'static str {
        self.machine.backend()
    }

    /// What tells another thread of the machine's end.
    pub(crate) fn machine(&self) -> MachineHandle {
        self.machine.handle()
    }

    /// The guest's files.
    pub fn fs(&self) -> Fs {
        Fs::new(self.session.clone())
    }

    fn exec_of(&self, command: &Command) -> Result<Exec> {
        let config = self.image.config();
        let user = command.user.as_deref().unwrap_or(&config.user);
        let Credentials {
            uid,
            gid,
            groups,
            home,
        } = self.accounts.resolve(user)?;
        let argv = argv(command, config);
        if argv.is_empty() {
            return Err(Error::NoCommand(self.image.name().to_owned()));
        }
        let working_dir = command.working_dir.as_deref().unwrap_or(&config.working_dir);
        let stdio = match command.terminal {
            Some((rows, cols)) => Stdio::Tty(guest_protocol::WindowSize { rows, cols }),
            None => Stdio::Pipes {
                stdin: command.stdin,
                stdout: true,
                stderr: true,
            },
        };
        Ok(Exec {
            argv: argv.into_iter().map(String::into_bytes).collect(),
            env: environment(command, &config.env, &home)
                .into_iter()
                .map(String::into_bytes)
                .collect(),
            cwd: working_dir.as_bytes().to_vec(),
            // Docker makes the working directory an image or a user names.
            create_cwd: true,
            uid,
            gid,
            groups,
            stdio,
        })
    }

    /// Lets the guest end in order: processes get SIGTERM and `grace`, file systems are written back.
    ///
    /// # Errors
    /// [`Error::Guest`] for a guest that does not end.
    pub fn shutdown(self, grace: Duration) -> Result<()> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(guest_protocol::wire::MAX_GRACE_MS);
        let asked = self.session.request(ToGuest::Shutdown(Shutdown {
            restart: false,
            grace_ms,
        }));
        match self.machine.wait(Some(Duration::from_secs(10))) {
            Some(outcome) => {
                debug!(?outcome, "the machine has ended");
                Ok(())
            }
            None => asked.and(Err(Error::Guest("it does not switch itself off".to_owned()))),
        }
    }

    /// Leaves the guest to end together with this process, which is about to end: what must stay is on the disk when
    /// this returns. Quicker than a drop, which gives everything back piece by piece.
    pub fn end_with_process(mut self) {
        self.keep_head_start();
        drop(self.keeping.take());
        std::mem::forget(self);
    }

    /// What this guest gathered stays for the next guest from the same snapshot.
    fn keep_head_start(&mut self) {
        if let Some(head_start) = self.head_start.take() {
            head_start.keep(&self.machine);
        }
    }

    /// Why the machine is gone.
    pub fn post_mortem(&self) -> PostMortem {
        let outcome = self.machine.wait(Some(Duration::from_secs(1)));
        let goes_on = outcome.is_none();
        let told = PostMortem::new(outcome, &self.console);
        match self.session.closed() {
            Some(how) if goes_on => PostMortem { how, ..told },
            _ => told,
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.keep_head_start();
    }
}

/// Who is who in the guest.
pub(crate) fn accounts(root: &Overlay) -> Accounts {
    Accounts {
        passwd: root.read_file("/etc/passwd", ACCOUNTS_MAX).unwrap_or_default(),
        group: root.read_file("/etc/group", ACCOUNTS_MAX).unwrap_or_default(),
    }
}

/// The root, all file systems with it as the first, and how shares are mounted.
pub(crate) fn serve(
    image: &Image,
    hostname: &str,
    shared: &[Share],
) -> Result<(Arc<Overlay>, Vec<Served>, Vec<Mount>)> {
    let root = Arc::new(root_tree(image, hostname)?);
    let mut served = vec![Served {
        tag: ROOT_TAG.to_owned(),
        server: Arc::new(Server::new(root.clone())),
    }];
    let (mounts, shares) = shares(shared)?;
    served.extend(shares);
    Ok((root, served, mounts))
}

fn root_tree(image: &Image, hostname: &str) -> Result<Overlay> {
    let tree = ImageTree::new(image.index()?);
    let root = Overlay::new(Arc::new(tree), &OverlayOptions::default())?;
    let own = renewal::hosts_line(hostname);
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}");
    root.insert_file("/etc/hostname", 0o644, 0, 0, format!("{hostname}\n").as_bytes())?;
    root.insert_file("/etc/hosts", 0o644, 0, 0, hosts.as_bytes())?;
    root.insert_file("/etc/resolv.conf", 0o644, 0, 0, b"# this guest has no network\n")?;
    Ok(root)
}

/// One virtio-fs device for each share. A single file is shared through the folder it is in.
fn shares(shares: &[Share]) -> Result<(Vec<Mount>, Vec<Served>)> {
    let mut mounts = Vec::new();
    let mut served = Vec::new();
    for (index, share) in shares.iter().enumerate() {
        let host = share
            .host
            .canonicalize()
            .map_err(Error::file("share", &share.host))?;
        let (folder, source) = match host.is_dir() {
            true => (host.as_path(), Vec::new()),
            false => {
                let name = host.file_name().unwrap_or_default();
                (host.parent().unwrap_or(&host), name.as_encoded_bytes().to_vec())
            }
        };
        let tag = format!("share{index}");
        let tree = HostShare::new(
            folder,
            HostShareOptions {
                read_only: share.read_only,
            },
        )?;
        served.push(Served {
            tag: tag.clone(),
            server: Arc::new(Server::new(Arc::new(tree))),
        });
        mounts.push(Mount {
            tag: tag.into_bytes(),
            path: share.guest.clone().into_bytes(),
            source,
            read_only: share.read_only,
        });
    }
    Ok((mounts, served))
}

/// Entrypoint and command as Docker combines them: a new entrypoint makes the image's command void.
fn argv(command: &Command, config: &oci::ImageConfig) -> Vec<String> {
    let (mut argv, default_arguments) = match &command.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => (Vec::new(), &[][..]),
        Some(entrypoint) => (vec![entrypoint.clone()], &[][..]),
        None => (config.entrypoint.clone(), &config.cmd[..]),
    };
    if command.arguments.is_empty() {
        argv.extend_from_slice(default_arguments);
    } else {
        argv.extend_from_slice(&command.arguments);
    }
    argv
}

/// The image's variables, then the user's over them; HOME, PATH and TERM where nobody set them.
fn environment(command: &Command, image: &[String], home: &str) -> Vec<String> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut all: Vec<String> = vec![PATH.to_owned(), format!("HOME={home}")];
    if command.terminal.is_some() {
        all.push("TERM=xterm".to_owned());
    }
    for variable in image.iter().chain(&command.env) {
        all.retain(|other| name(other) != name(variable));
        all.push(variable.clone());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> oci::ImageConfig {
        let mut config = oci::ImageConfig::new(oci::Platform::linux("amd64"));
        config.entrypoint = vec!["/init".to_owned(), "-x".to_owned()];
        config.cmd = vec!["serve".to_owned()];
        config
    }

    #[test]
    fn argv_without_words_is_entrypoint_and_command() {
        assert_eq!(argv(&Command::default(), &config()), ["/init", "-x", "serve"]);
    }

    #[test]
    fn argv_words_replace_the_command_only() {
        let command = Command {
            arguments: vec!["sh".to_owned()],
            ..Command::default()
        };
        assert_eq!(argv(&command, &config()), ["/init", "-x", "sh"]);
    }

    #[test]
    fn argv_new_entrypoint_voids_the_command() {
        let command = Command {
            entrypoint: Some("/bin/sh".to_owned()),
            ..Command::default()
        };
        assert_eq!(argv(&command, &config()), ["/bin/sh"]);
    }

    #[test]
    fn environment_later_settings_win() {
        let command = Command {
            env: vec!["A=3".to_owned(), "HOME=/h".to_owned()],
            ..Command::default()
        };
        let all = environment(&command, &["A=1".to_owned(), "PATH=/p".to_owned()], "/root");
        assert_eq!(all, ["PATH=/p", "A=3", "HOME=/h"]);
    }
}
