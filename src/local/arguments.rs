//! The command lines of a person's machine and of CI jobs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::check::arguments::CheckArgs;
use super::error::ErrorArgs;
use super::private_dir::{GuardArgs, PrivateDir};
use crate::parse_error::{ParseError, invalid, rule};
use crate::quantity::parse_duration;

const LONG_RUN: &str = "\
Run a command with secrets as environment variables.

Examples:
  hushpod run -- sh -c 'echo \"$DB_PASSWORD\" | wc -c'
  hushpod run -- npm start
  hushpod run -p prod --only DB_PASSWORD -- ./migrate
  hushpod run -f k8s/web.yaml -- python app.py
  hushpod run --env TOKEN=vault:secret/data/hf#token -- make
  hushpod run --files -- sh -c 'cat \"$HUSHPOD_FILES/tls/key.pem\" | wc -c'
  hushpod run --watch -- npm start
  hushpod run --files --watch=signal:HUP -- nginx -g 'daemon off;'
  hushpod run --cache 12h -- npm start";
const AFTER_RUN: &str = "\
COMMAND takes this process over: same pid, terminal and signals; with --watch
and --mask it is a child. Variables are those of .hushpod.yaml, or of the pod in
FILE. A store's value goes before one of your shell.
Linux only, WSL included: hushpod explain local.

Exit codes: COMMAND's own; 125 hushpod failed and COMMAND was not run,
126 COMMAND cannot be run, 127 there is no COMMAND";

const LONG_GET: &str = "\
Print one secret, byte by byte as the store has it.

Examples:
  hushpod get vault:secret/data/db#password | psql-login
  hushpod get secret/data/tls#key -o tls.key
  PASSWORD=$(hushpod get secret/data/db#password)";
const AFTER_GET: &str = "\
Linux only, WSL included: hushpod explain local.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not there; 4 the store refuses;
5 the store did not answer in time";

const LONG_EXPORT: &str = "\
Write variables in the format of a shell, a tool or a CI system.

Examples:
  eval \"$(hushpod export --format direnv --cache 12h)\"       in .envrc
  hushpod export --format dotenv -o .env.run
  hushpod export --format github                 in a step of a workflow
  hushpod export --format json | jq -r .DB_PASSWORD";
const AFTER_EXPORT: &str = "\
A value that a format cannot hold is refused, and nothing is written.
Linux only, WSL included: hushpod explain local.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not there; 4 the store refuses;
5 the store did not answer in time";

const LONG_RENDER: &str = "\
Write files as a pod has them.

Examples:
  hushpod render --dir /dev/shm/secrets
  hushpod render --dir /dev/shm/secrets --watch
  hushpod render -f k8s/web.yaml --dir \"$XDG_RUNTIME_DIR/web\"";
const AFTER_RENDER: &str = "\
DIR looks as a pod's volume does, with ..data, and changes as a whole. It has to
be in memory if no value may lie on a disk.
Linux only, WSL included: hushpod explain local.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 not there; 4 the store refuses;
5 the store did not answer in time";

const LONG_TRUST: &str = "\
Let the stores of a repository's file have your login.

Examples:
  hushpod trust .                 the stores of this directory's .hushpod.yaml
  hushpod trust ../other/.hushpod.yaml";
const AFTER_TRUST: &str = "\
An address in a repository's file decides where your login is sent. Each is asked
about once; without a terminal, this command or HUSHPOD_TRUST=1 answers.

Exit codes: 0 done; 1 failed; 2 wrong usage";

const LONG_CHECK: &str = "\
Say all that is wrong with Kubernetes manifests, an operator's configuration and
.hushpod.yaml, before anything is applied.

Examples:
  hushpod check k8s/                             every manifest of a directory
  helm template . | hushpod check -              what is rendered
  hushpod check --config operator.yaml k8s/      by the operator's stores and rules
  hushpod check --live .hushpod.yaml k8s/        is it all in the stores?
  hushpod check -o github k8s/                   in a workflow of GitHub
  hushpod check --config operator.yaml --as team-a/web secret/data/team-a/db
                                                 which rule says what";
const AFTER_CHECK: &str = "\
Neither a cluster nor a store is asked, but with --live. What each file is, and
what is looked at: hushpod explain local.

Exit codes: 0 nothing is wrong, and everything is allowed; 1 something is wrong,
or refused; 2 wrong usage, or a file that cannot be read; with --live also
4 the store refuses; 5 the store did not answer in time";

const LONG_LOGIN: &str = "\
Say which login each store gets.

Examples:
  hushpod login status            which login each store gets, and until when";
const LONG_STATUS: &str = "\
Log in to each store, and say until when the login is good.

Examples:
  hushpod login status
  hushpod login status -p prod";
const AFTER_LOGIN: &str = "\
Logins are what each store's own tools left. hushpod stores none.

Exit codes: 0 every store takes its login; 1 one does not; 2 wrong usage";

/// What a person types on their own machine, and a job of CI.
#[derive(Debug, Subcommand)]
pub enum LocalCommand {
    /// Run a command with secrets as environment variables.
    #[command(long_about = LONG_RUN, after_help = AFTER_RUN)]
    Run(Box<RunArgs>),
    /// Print one secret, byte by byte as the store has it.
    #[command(long_about = LONG_GET, after_help = AFTER_GET)]
    Get(Box<GetArgs>),
    /// Write variables in the format of a shell, a tool or a CI system.
    #[command(long_about = LONG_EXPORT, after_help = AFTER_EXPORT)]
    Export(Box<ExportArgs>),
    /// Write files as a pod has them.
    #[command(long_about = LONG_RENDER, after_help = AFTER_RENDER)]
    Render(Box<RenderArgs>),
    /// Say which login each store gets.
    #[command(long_about = LONG_LOGIN, after_help = AFTER_LOGIN, subcommand_required = true, arg_required_else_help = true)]
    Login {
        /// What is asked for.
        #[command(subcommand)]
        command: LoginCommand,
    },
    /// Let the stores of a repository's file have your login.
    #[command(long_about = LONG_TRUST, after_help = AFTER_TRUST)]
    Trust(TrustArgs),
    /// Say all that is wrong with manifests, an operator's configuration and .hushpod.yaml.
    #[command(long_about = LONG_CHECK, after_help = AFTER_CHECK)]
    Check(Box<CheckArgs>),
    /// What `run` starts of this program beside itself.
    #[command(hide = true, subcommand)]
    RunHelper(RunHelper),
}

/// Parts of `run` that are processes of their own.
#[derive(Debug, Subcommand)]
pub enum RunHelper {
    /// Try to mount a directory in a namespace of its own.
    Mount {
        /// Where.
        dir: PathBuf,
    },
    /// Start the guardian as nobody's child.
    Detach(GuardArgs),
    /// Wait for the end of a process, whose pidfd is standard input, and remove its directory.
    Guard(GuardArgs),
    /// Run a command in the foreground of the terminal that is standard input.
    Foreground {
        /// The program's file.
        file: OsString,
        /// Its name, and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// What there is to know about logins.
#[derive(Debug, Subcommand)]
pub enum LoginCommand {
    /// Log in to each store, and say until when the login is good.
    #[command(long_about = LONG_STATUS, after_help = AFTER_LOGIN)]
    Status(StatusOfLogins),
}

/// Options of `login status`.
#[derive(Debug, Args)]
pub struct StatusOfLogins {
    #[command(flatten)]
    pub(super) stores: StoreArgs,
}

/// Which secrets, of which stores.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// A .hushpod.yaml, or a Kubernetes manifest with annotations [default: .hushpod.yaml here or above]
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// The container that is meant, where a manifest has several pods
    #[arg(long, value_name = "NAME", requires = "file")]
    pub(super) container: Option<String>,
    /// The profile
    #[arg(long, short = 'p', env = "HUSHPOD_PROFILE", value_name = "NAME")]
    pub(super) profile: Option<String>,
    /// The operator's configuration: its addresses, and its rules
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// How long stores may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) errors: ErrorArgs,
}

/// Which answers of an earlier command will do.
#[derive(Debug, Default, Args)]
pub(super) struct CacheArgs {
    /// Ask no store while there is an encrypted copy of its answers that is younger, such as 12h; else keep one
    #[arg(long, value_name = "AGE", value_parser = parse_duration, conflicts_with = "offline")]
    pub(super) cache: Option<Duration>,
    /// Ask no store: use the copy that --cache kept, however old it is
    #[arg(long)]
    pub(super) offline: bool,
}

/// Which variables, and what they are called.
#[derive(Debug, Args)]
pub(super) struct VariableArgs {
    /// One more variable
    #[arg(long = "env", value_name = "NAME=REF", value_parser = name_and_reference)]
    pub(super) variables: Vec<(String, String)>,
    /// These variables alone
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// What stands before each name, such as TF_VAR_
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) prefix: String,
    /// Change the letters of each name, before the prefix
    #[arg(long, value_name = "CASE")]
    pub(super) case: Option<LetterCase>,
}

/// When values in output are masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum MaskWhen {
    /// In CI (the variable CI is set) where standard output is not a terminal; on GitHub its runner does it
    Auto,
    /// Wherever it is run; where output is a terminal, COMMAND has a terminal of its own
    Always,
    /// Not at all
    Never,
}

/// What a change of secrets does to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchFor {
    /// It is ended and started anew, if its variables are others.
    Restart,
    /// It is told that its files are others.
    Signal(crate::options::Signal),
}

/// Letters of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LetterCase {
    /// a, b, c
    Lower,
    /// A, B, C
    Upper,
}

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// NAME='value' lines that sh, python-dotenv and dotenv of Node read alike
    Dotenv,
    /// docker run --env-file
    Docker,
    /// env_file of docker compose
    Compose,
    /// export NAME='value' lines for sh, dash, bash and zsh
    Shell,
    /// set -gx lines
    Fish,
    /// For eval in .envrc
    Direnv,
    /// One object
    Json,
    /// One map
    Yaml,
    /// Java properties
    Properties,
    /// EnvironmentFile= of systemd
    Systemd,
    /// Masks to standard output, variables to $GITHUB_ENV
    Github,
    /// A dotenv report of GitLab
    Gitlab,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub(super) stores: StoreArgs,
    #[command(flatten)]
    pub(super) copies: CacheArgs,
    #[command(flatten)]
    pub(super) variables: VariableArgs,
    /// Say on standard error where each variable and file comes from
    #[arg(long, short = 'v')]
    pub(super) verbose: bool,
    /// Leave this variable as the shell has it
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) keep: Vec<String>,
    /// Have the files of the pod in a directory in memory that ends with COMMAND [default: $XDG_RUNTIME_DIR/hushpod/files]
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "an option whose value may be left out")]
    pub(super) files: Option<Option<PathBuf>>,
    /// Where they are, once that is known.
    #[arg(skip)]
    pub(super) place: Option<PrivateDir>,
    /// Restart COMMAND when its variables change, or send it a signal (signal:HUP) when its files do
    #[arg(long, value_name = "WHAT", num_args = 0..=1, require_equals = true, conflicts_with_all = ["cache", "offline"])]
    #[arg(default_missing_value = "restart", value_parser = watch_for)]
    pub(super) watch: Option<WatchFor>,
    /// How long COMMAND may take to end before it is killed, at a restart
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration, requires = "watch")]
    pub(super) grace: Duration,
    /// Show values in what COMMAND prints as <NAME>
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) mask: MaskWhen,
    /// Leave out all variables of the shell
    #[arg(long)]
    pub(super) clean: bool,
    /// … but these
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "clean")]
    pub(super) pass: Vec<String>,
    /// The command and its arguments, behind --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Options of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// [provider:]path[?param=value][#key]
    #[arg(value_name = "REF")]
    pub(super) reference: String,
    /// Write it to a file that only you can read, replaced as a whole
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Print it even to a terminal
    #[arg(long)]
    pub(super) show: bool,
    #[command(flatten)]
    pub(super) stores: StoreArgs,
    #[command(flatten)]
    pub(super) copies: CacheArgs,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Who is to read it
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: ExportFormat,
    /// Write to a file that only you can read, replaced as a whole
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Print values even to a terminal
    #[arg(long)]
    pub(super) show: bool,
    #[command(flatten)]
    pub(super) variables: VariableArgs,
    #[command(flatten)]
    pub(super) stores: StoreArgs,
    #[command(flatten)]
    pub(super) copies: CacheArgs,
}

/// Options of `render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The directory, made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Go on, and write again what changes in the stores
    #[arg(long, conflicts_with_all = ["cache", "offline"])]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) stores: StoreArgs,
    #[command(flatten)]
    pub(super) copies: CacheArgs,
}

/// Options of `trust`.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// A directory with a .hushpod.yaml, or such a file
    #[arg(value_name = "PATH", default_value = ".")]
    pub(super) path: PathBuf,
    #[command(flatten)]
    pub(super) errors: ErrorArgs,
}

fn watch_for(text: &str) -> Result<WatchFor, ParseError> {
    match (text, text.strip_prefix("signal:")) {
        ("restart", _) => Ok(WatchFor::Restart),
        (_, Some(signal)) => Ok(WatchFor::Signal(signal.parse()?)),
        _ => Err(invalid("--watch", text, "restart, or signal:HUP and the like")),
    }
}

fn name_and_reference(text: &str) -> Result<(String, String), ParseError> {
    let (name, reference) = text.split_once('=').ok_or_else(|| rule("expected NAME=REFERENCE"))?;
    Ok((name.to_owned(), reference.to_owned()))
}
