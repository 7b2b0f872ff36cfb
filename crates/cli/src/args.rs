//! The words of the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use crumblecracker::{Library, TraceKind};

use crate::options::{Around, Attached, Fetch, Guest};
use crate::print::{self, Volume};
use crate::values;

/// Runs OCI images as microVMs.
#[derive(Debug, Parser)]
#[command(
    version,
    override_usage = "cc [run] [OPTIONS] IMAGE [COMMAND [ARGUMENT]...]\n       cc start|exec|fork|ps|logs|stop [OPTIONS] ...\n       cc pull|images|rmi|snapshot|cache|doctor [OPTIONS] ...",
    after_help = "The word `run` may be left out; `cc run --help` lists its options.",
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) request: Request,
}

/// What every request understands.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Folder for images and kernels, in place of ~/.cache/crumblecracker
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Tell what is being done
    #[arg(long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// Tell nothing but errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Be the monitor of a guest: what `start` starts itself again for
    #[arg(long, global = true, hide = true)]
    pub(crate) monitor: bool,
}

impl Common {
    pub(crate) fn volume(&self) -> Volume {
        match (self.quiet, self.verbose) {
            (true, _) => Volume::Quiet,
            (false, true) => Volume::Verbose,
            (false, false) => Volume::Normal,
        }
    }

    pub(crate) fn library(&self) -> crumblecracker::Result<Library> {
        Library::open(self.cache_dir.as_deref())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// Run a command in a new guest made of an image
    Run(Box<Run>),
    /// Start a guest that has a name and goes on after this program's end
    Start(Box<Start>),
    /// Run a command in a guest that was started
    Exec(Box<Exec>),
    /// List the guests that were started
    Ps,
    /// Print what the main process of a guest wrote
    Logs(Logs),
    /// End guests in order
    Stop(Stop),
    /// Make guests that go on from where one is now, and print their names
    Fork(Fork),
    /// Bring images, and the kernel they run on, into the cache
    Pull(Pull),
    /// List the images in the cache
    Images,
    /// Remove images from the cache
    Rmi(Names),
    /// See to guests that were put by, which `run --from` goes on with
    #[command(subcommand)]
    Snapshot(SnapshotRequest),
    /// See to the snapshots of booted guests that make starts fast
    #[command(subcommand)]
    Cache(CacheRequest),
    /// Tell which CPU backends can be used here
    Doctor,
    /// Boot a kernel with an initial RAM file system, its console on standard output
    #[command(hide = true)]
    BootBench(BootBench),
}

#[derive(Debug, Args)]
#[command(override_usage = "cc [run] [OPTIONS] IMAGE [COMMAND [ARGUMENT]...]")]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) attached: Attached,
    #[command(flatten)]
    pub(crate) around: Around,
    #[command(flatten)]
    pub(crate) guest: Guest,
    /// Stop the command after so many seconds, with exit status 124
    #[arg(long, value_name = "SECONDS", value_parser = values::seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Show what the guest's kernel says on standard error
    #[arg(long)]
    pub(crate) dmesg: bool,
    /// Tell on standard error when what happened
    #[arg(long)]
    pub(crate) timing: bool,
    /// Tell what guest code does, line by line on standard error; on the soft backend
    #[arg(
        long,
        value_name = "KIND[,KIND]...",
        value_delimiter = ',',
        conflicts_with = "from"
    )]
    pub(crate) trace: Vec<Traced>,
    /// Write those lines to a file
    #[arg(long, value_name = "FILE", requires = "trace")]
    pub(crate) trace_file: Option<PathBuf>,
    /// Write where the guest's time went to a file, as folded stacks for flame graphs; on the soft backend
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub(crate) profile: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(override_usage = "cc start --name NAME [OPTIONS] IMAGE [COMMAND [ARGUMENT]...]")]
pub(crate) struct Start {
    /// What the guest is called from now on
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) around: Around,
    #[command(flatten)]
    pub(crate) guest: Guest,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) attached: Attached,
    #[command(flatten)]
    pub(crate) around: Around,
    /// The guest
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    words: Vec<String>,
}

impl Exec {
    /// The words of the command.
    pub(crate) fn command(&self) -> &[String] {
        match self.words.split_first() {
            Some((first, rest)) if first == "--" => rest,
            _ => &self.words,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Fork {
    /// How many
    #[arg(long, short = 'n', value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) number: u32,
    /// What they are called, with numbers after it [default: the guest's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Give each its own name as host name, too
    #[arg(long)]
    pub(crate) new_hostname: bool,
    /// Give each an /etc/machine-id of its own
    #[arg(long)]
    pub(crate) new_machine_id: bool,
    /// The guest
    #[arg(value_name = "GUEST")]
    pub(crate) guest: String,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Kill what has not ended after so many seconds
    #[arg(long, short, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u16).range(..=60))]
    pub(crate) time: u16,
    /// The guests
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The guest
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// The words of `--trace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Traced {
    /// Accesses of devices, halts, the end
    Exits,
    /// Every block of guest code that is run
    Blocks,
    /// Exceptions and interrupts
    Exceptions,
    /// Every instruction
    Instructions,
}

impl From<Traced> for TraceKind {
    fn from(traced: Traced) -> Self {
        match traced {
            Traced::Exits => Self::Exits,
            Traced::Blocks => Self::Blocks,
            Traced::Exceptions => Self::Exceptions,
            Traced::Instructions => Self::Instructions,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    pub(crate) fetch: Fetch,
    /// Fetch no kernel, for guests that will boot another one
    #[arg(long)]
    pub(crate) no_kernel: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotRequest {
    /// Put a guest that was started by, as it is now; it goes on
    Create {
        /// What it is to be called
        #[arg(value_name = "SNAPSHOT")]
        name: String,
        /// The guest
        #[arg(value_name = "GUEST")]
        guest: String,
    },
    /// List them, the one made last first
    Ls,
    /// Write some anew, each apart from the guest it came from, with which it has unchanged memory in common
    Flatten {
        /// Their names
        #[arg(required = true, value_name = "SNAPSHOT")]
        names: Vec<String>,
    },
    /// Remove some; guests that came from them go on
    Rm {
        /// Their names
        #[arg(required = true, value_name = "SNAPSHOT")]
        names: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheRequest {
    /// List them, the one used last first
    Ls,
    /// Remove those used longest ago, until the others fit
    Prune {
        /// What may stay, in MiB, or with M or G after the number [default: nothing]
        #[arg(long, value_name = "SIZE", default_value = "0", value_parser = values::size_mib)]
        keep: u64,
    },
    /// Read all of them and remove those that are damaged
    Verify,
}

#[derive(Debug, Args)]
pub(crate) struct BootBench {
    /// ELF kernel
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,
    /// Initial RAM file system
    #[arg(long, value_name = "FILE")]
    pub(crate) initramfs: PathBuf,
    /// Memory of the guest
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = values::memory_mib)]
    pub(crate) memory: u64,
    /// Words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub(crate) append: String,
    /// CPU backend to use
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
}

/// What came of the words.
pub(crate) enum Parsed {
    /// A request.
    Arguments(Box<Arguments>),
    /// Help or version, to be printed.
    Text(String),
    /// One line that says what is wrong.
    Refused(String),
}

/// Understands `words`, the first of which is the program's own name.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Parsed {
    match Arguments::try_parse_from(with_run(words.into_iter().collect())) {
        Ok(arguments) => Parsed::Arguments(Box::new(arguments)),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Text(error.to_string()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Parsed::Refused(format!("nothing to do; see `{} --help`", print::program_name()))
            }
            _ => Parsed::Refused(first_paragraph(&error.to_string())),
        },
    }
}

/// The first paragraph of one of clap's messages in one line; what follows it is tips and usage.
fn first_paragraph(message: &str) -> String {
    let lines = message.lines().map(str::trim).take_while(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

/// Puts the word `run` in where it was left out: before the first word if that is no request.
fn with_run(mut words: Vec<OsString>) -> Vec<OsString> {
    let command = Arguments::command();
    let mut at = 1;
    while let Some(word) = words.get(at) {
        let word = word.to_string_lossy();
        let is_option = word.len() > 1 && word.starts_with('-');
        if !is_option && (command.find_subcommand(&*word).is_some() || word == "help") {
            return words;
        }
        if at == 1 && matches!(&*word, "-h" | "--help" | "-V" | "--version") {
            return words;
        }
        if !is_option || word == "--" {
            break;
        }
        at += if takes_next_word(&command, &word) { 2 } else { 1 };
    }
    if words.len() > 1 {
        words.insert(1, "run".into());
    }
    words
}

/// Whether the value of the option `word` is the word after it.
fn takes_next_word(command: &clap::Command, word: &str) -> bool {
    let run = command.find_subcommand("run");
    let options = || {
        command
            .get_arguments()
            .chain(run.into_iter().flat_map(clap::Command::get_arguments))
    };
    let needs_value = |option: &clap::Arg| {
        matches!(option.get_action(), ArgAction::Set | ArgAction::Append) && !option.is_require_equals_set()
    };
    if let Some(long) = word.strip_prefix("--") {
        return options().any(|option| option.get_long() == Some(long) && needs_value(option));
    }
    // In a cluster as `-itu` the first option with a value takes the rest, or the next word.
    let mut letters = word.chars().skip(1);
    let with_value = letters
        .find(|letter| options().any(|option| option.get_short() == Some(*letter) && needs_value(option)));
    with_value.is_some() && letters.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Parsed {
        parse(
            std::iter::once("cc")
                .chain(line.split_whitespace())
                .map(OsString::from),
        )
    }

    fn run(line: &str) -> Run {
        match parsed(line) {
            Parsed::Arguments(arguments) => match arguments.request {
                Request::Run(run) => *run,
                other => panic!("{line} is {other:?}"),
            },
            Parsed::Text(text) | Parsed::Refused(text) => panic!("{line}: {text}"),
        }
    }

    fn refusal(line: &str) -> String {
        match parsed(line) {
            Parsed::Refused(reason) => reason,
            _ => panic!("{line} is not refused"),
        }
    }

    #[test]
    fn command_line_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn run_left_out_is_understood() {
        let run = run("alpine echo hello");

        assert_eq!(
            run.guest.image_and_command(),
            ("alpine", &["echo".to_owned(), "hello".to_owned()][..])
        );
    }

    #[test]
    fn run_left_out_after_options_with_values_is_understood() {
        let run = run("--verbose -e A=pull -itu images --cache-dir rmi --memory 2G alpine doctor");

        assert_eq!(
            run.guest.image_and_command(),
            ("alpine", &["doctor".to_owned()][..])
        );
        assert_eq!(run.around.env, ["A=pull"]);
        assert_eq!(run.around.user.as_deref(), Some("images"));
        assert_eq!(
            (run.attached.interactive, run.attached.tty, run.guest.memory),
            (Some(true), Some(true), Some(2048))
        );
    }

    #[test]
    fn request_after_common_options_is_not_an_image() {
        let Parsed::Arguments(arguments) = parsed("--verbose --cache-dir /c pull alpine") else {
            panic!("refused")
        };

        assert!(matches!(&arguments.request, Request::Pull(pull) if pull.images == ["alpine"]));
        assert!(arguments.common.verbose);
    }

    #[test]
    fn words_after_the_image_belong_to_the_command() {
        let run = run("run alpine -e A=B --help -- x");

        assert_eq!(
            run.guest.image_and_command().1,
            ["-e", "A=B", "--help", "--", "x"]
        );
        assert_eq!(run.around.env, Vec::<String>::new());
    }

    #[test]
    fn separators_before_and_after_the_image_are_dropped() {
        assert_eq!(
            run("run -- alpine -- ls -l").guest.image_and_command().1,
            ["ls", "-l"]
        );
        assert_eq!(
            run("-- pull ls").guest.image_and_command(),
            ("pull", &["ls".to_owned()][..])
        );
    }

    #[test]
    fn trace_kinds_are_listed_or_repeated() {
        let run = run("--trace exits,blocks --trace exceptions --profile out alpine ls");

        assert_eq!(run.trace, [Traced::Exits, Traced::Blocks, Traced::Exceptions]);
        assert_eq!(run.profile, Some(PathBuf::from("out")));
        assert_eq!(run.guest.image_and_command(), ("alpine", &["ls".to_owned()][..]));
    }

    #[test]
    fn start_has_a_name_and_the_words_of_run() {
        let Parsed::Arguments(arguments) = parsed("--quiet start -e A=B --name box -m 1G alpine sleep --x")
        else {
            panic!("refused")
        };
        let Request::Start(start) = arguments.request else {
            panic!("no start")
        };

        assert_eq!((start.name.as_str(), start.guest.memory), ("box", Some(1024)));
        assert_eq!(start.around.env, ["A=B"]);
        assert_eq!(
            start.guest.image_and_command(),
            ("alpine", &["sleep".to_owned(), "--x".to_owned()][..])
        );
        assert!(!arguments.common.monitor);
    }

    #[test]
    fn exec_words_after_the_name_belong_to_the_command() {
        for line in [
            "exec -it -u me box ls --help -i",
            "exec -it -u me box -- ls --help -i",
        ] {
            let Parsed::Arguments(arguments) = parsed(line) else {
                panic!("{line} is refused")
            };
            let Request::Exec(exec) = arguments.request else {
                panic!("{line} is no exec")
            };

            assert_eq!((exec.name.as_str(), exec.command()), ("box", &words()[..]));
            assert_eq!(
                (exec.attached.interactive, exec.attached.tty),
                (Some(true), Some(true))
            );
            assert_eq!(exec.around.user.as_deref(), Some("me"));
        }
        fn words() -> [String; 3] {
            ["ls", "--help", "-i"].map(str::to_owned)
        }
    }

    #[test]
    fn words_after_a_snapshot_are_the_command() {
        let run = run("--from one -t -- ls -l");

        assert_eq!(run.guest.from.as_deref(), Some("one"));
        assert_eq!(
            run.guest.image_and_command(),
            ("", &["ls".to_owned(), "-l".to_owned()][..])
        );
        assert!(
            super::tests::run("--from one")
                .guest
                .image_and_command()
                .1
                .is_empty()
        );
    }

    #[test]
    fn interactive_and_tty_with_a_value_can_be_switched_off() {
        let run = run("-i=false --tty=false alpine");

        assert_eq!(
            (run.attached.interactive, run.attached.tty),
            (Some(false), Some(false))
        );
    }

    #[test]
    fn refusals_are_one_line_with_the_word_in_it() {
        for (line, word) in [
            ("run --memory lots alpine", "lots"),
            ("--wrong alpine", "--wrong"),
            ("run --pull sometimes alpine", "sometimes"),
            ("run --timeout 0 alpine", "0"),
            ("run -v nowhere alpine", "nowhere"),
            ("run --cpus 0 alpine", "0"),
            ("run --cpu pentium alpine", "x86-64-v3"),
            ("run --trace exits,dreams alpine", "dreams"),
            ("run --trace-file f alpine", "--trace"),
            ("run", "IMAGE"),
            ("run --from one --memory 1G", "--memory"),
            ("snapshot rm", "SNAPSHOT"),
            ("pull", "IMAGE"),
            ("", "--help"),
            ("--quiet --verbose images", "--verbose"),
            ("start alpine", "--name"),
            ("start --name box", "IMAGE"),
            ("start --name box --tty alpine", "--tty"),
            ("exec box", "COMMAND"),
            ("exec", "NAME"),
            ("stop", "NAME"),
            ("stop --time 61 box", "61"),
            ("ps box", "box"),
            ("logs", "NAME"),
        ] {
            let reason = refusal(line);
            assert!(reason.contains(word), "{line}: {reason}");
            assert!(!reason.contains('\n'), "{line}: {reason}");
        }
    }

    #[test]
    fn help_and_version_are_texts() {
        for line in ["--help", "-V", "run --help", "help run", "-e A=B --help"] {
            assert!(matches!(parsed(line), Parsed::Text(_)), "{line}");
        }
    }
}
