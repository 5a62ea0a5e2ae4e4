//! The command lines of a person's machine and of CI jobs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::error::ErrorFormat;
use crate::quantity::parse_duration;

const LONG_RUN: &str = "\
Run a command with secrets as environment variables.

Examples:
  hushpod run -- npm start
  hushpod run -- sh -c 'echo \"$DB_PASSWORD\" | wc -c'
  hushpod run -p prod --only DB_PASSWORD -- ./migrate
  hushpod run -f k8s/web.yaml -- python app.py
  hushpod run --env TOKEN=vault:secret/data/hf#token -- make
  hushpod run --cache 12h -- npm start";
const AFTER_RUN: &str = "\
COMMAND takes this process over: same pid, terminal and signals. Variables are
those of .hushpod.yaml, or of the pod in FILE. A store's value goes before one
of your shell. Linux only, WSL included: hushpod explain local.

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

const LONG_LOGIN: &str = "\
Say which login each store gets.

Examples:
  hushpod login status            which login each store gets, and until when";
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
}

/// What there is to know about logins.
#[derive(Debug, Subcommand)]
pub enum LoginCommand {
    /// Log in to each store, and say until when the login is good.
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
    /// How errors are told
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) error_format: ErrorFormat,
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
    /// Wherever it is run; standard output and error must not be terminals
    Always,
    /// Not at all
    Never,
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
    /// Leave this variable as the shell has it
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) keep: Vec<String>,
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
    /// How errors are told
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) error_format: ErrorFormat,
}

fn name_and_reference(text: &str) -> Result<(String, String), String> {
    let (name, reference) = text.split_once('=').ok_or("expected NAME=REFERENCE")?;
    Ok((name.to_owned(), reference.to_owned()))
}
