//! The command line of `kubectl hushpod`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::Identity;
use crate::parse_error::{ParseError, rule};
use crate::quantity::parse_duration;

/// What stands behind the commands' help.
const AFTER: &str = "\
Needs the rights of the ClusterRoles hushpod-viewer (status, history, who) or
hushpod-controls (the others), which the chart makes: hushpod explain kubectl.

Exit codes: 0 done; 1 it failed, and said why; 2 the command line is wrong;
3 some pods have not reported in time that it is done; 4 stopped, since a pod
that was ready is not any more";
const LONG: &str = "\
See and steer the secrets of running pods.

Examples:
  kubectl hushpod status -A
  kubectl hushpod who vault:secret/data/db --version 3
  kubectl hushpod hold deploy/web
  kubectl hushpod advance deploy/web --max 10% --pause 30s
  kubectl hushpod release deploy/web";
const STATUS: &str = "\
What each pod holds since when, what is newer, and what is in the way.

Examples:
  kubectl hushpod status -A
  kubectl hushpod status deploy/web -o wide
  kubectl hushpod status -l app=web -o json";
const HISTORY: &str = "\
The generations that a pod had, as far back as its log goes.

Examples:
  kubectl hushpod history web-1
  kubectl hushpod history web-1 -o json";
const WHO: &str = "\
Which pods hold a secret.

Examples:
  kubectl hushpod who vault:secret/data/db --version 3
  kubectl hushpod who -A --denied-by config.yaml
  kubectl hushpod who secret/data/db --from-audit audit.jsonl";
const HOLD: &str = "\
Keep pods at the generation that they have.

Examples:
  kubectl hushpod hold deploy/web
  kubectl hushpod hold -l app=web --dry-run";
const RELEASE: &str = "\
Let go of hold and pin: pods take the newest, and follow it.

Examples:
  kubectl hushpod release deploy/web
  kubectl hushpod release -A -l app=web --max 10% --pause 30s";
const PIN: &str = "\
Go back to a generation that the pods had, and stay there.

Examples:
  kubectl hushpod pin 4f1c0a9e2b7d5566 deploy/web";
const REFRESH: &str = "\
Read every secret now.

Examples:
  kubectl hushpod refresh -l app=web
  kubectl hushpod refresh deploy/web --max 5 --timeout 10m";
const ADVANCE: &str = "\
Let held pods take the newest once, some at a time, and hold again.

Examples:
  kubectl hushpod advance deploy/web --max 1
  kubectl hushpod advance deploy/web --max 10% --pause 30s";
const DENY: &str = "\
Stop the agents of pods that ask for what the operator's configuration refuses
by now, and let those go on that it refuses no more. The files stay.

Examples:
  kubectl hushpod deny --config config.yaml -A --dry-run
  kubectl hushpod deny --config config.yaml -A
  kubectl hushpod deny --config config.yaml deploy/web --max 10% --pause 30s";
const EXPLAIN_DENIAL: &str = "\
Say which annotation, rule or field a denial is about, and where to read on; no
cluster is asked.

Examples:
  kubectl apply -f pod.yaml 2>&1 | kubectl hushpod explain-denial -
  kubectl hushpod explain-denial denial.txt
  kubectl hushpod explain-denial pod.yaml --config operator.yaml --as shop/web";
const COMPLETION: &str = "\
Print a shell's completion of this command.

Examples:
  kubectl hushpod completion fish >kubectl-hushpod.fish
  source <(kubectl hushpod completion bash)";

/// See and steer the secrets of running pods.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-hushpod",
    bin_name = "kubectl hushpod",
    version,
    long_about = LONG,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct PluginCli {
    /// What is asked for.
    #[command(flatten)]
    pub fleet: FleetArgs,
}

/// What is asked for, and of which cluster.
#[derive(Debug, Args)]
#[command(about = "See and steer the secrets of running pods, with your own kubeconfig: `kubectl hushpod` is the same")]
#[command(long_about = LONG, after_help = AFTER, subcommand_required = true, arg_required_else_help = true)]
pub struct FleetArgs {
    #[command(subcommand)]
    pub(super) command: FleetCommand,
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
}

/// The cluster, as kubectl has it.
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// The kubeconfig; those of KUBECONFIG, or ~/.kube/config, if left out.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; its current one if left out.
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// The namespace; the context's if left out.
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub(super) namespace: Option<String>,
    /// The namespace of the CSI driver's pods, in whose log are the reports of pods of mode csi; found by their labels
    /// if left out.
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) csi_namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum FleetCommand {
    /// What each pod holds since when, what is newer, and what is in the way
    #[command(long_about = STATUS, after_help = AFTER)]
    Status(StatusArgs),
    /// The generations that a pod had, as far back as its log goes
    #[command(long_about = HISTORY, after_help = AFTER)]
    History(HistoryArgs),
    /// Which pods hold a secret
    #[command(long_about = WHO, after_help = AFTER)]
    Who(WhoArgs),
    /// Keep pods at the generation that they have
    #[command(long_about = HOLD, after_help = AFTER)]
    Hold(ControlArgs),
    /// Let go of hold and pin: pods take the newest, and follow it
    #[command(long_about = RELEASE, after_help = AFTER)]
    Release(ControlArgs),
    /// Go back to a generation that the pods had, and stay there
    #[command(long_about = PIN, after_help = AFTER)]
    Pin(PinArgs),
    /// Read every secret now
    #[command(long_about = REFRESH, after_help = AFTER)]
    Refresh(ControlArgs),
    /// Let held pods take the newest once, some at a time, and hold again
    #[command(long_about = ADVANCE, after_help = AFTER)]
    Advance(AdvanceArgs),
    /// Stop agents of pods that ask for what the operator's configuration refuses by now; the files stay
    #[command(long_about = DENY, after_help = AFTER)]
    Deny(DenyArgs),
    /// Say which annotation, rule or field a denial is about, and where to read on; no cluster is asked
    #[command(long_about = EXPLAIN_DENIAL, after_help = AFTER)]
    ExplainDenial(DenialArgs),
    /// Print a shell's completion of this command
    #[command(long_about = COMPLETION, after_help = AFTER)]
    Completion {
        /// bash, zsh, fish, powershell or elvish
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

/// Pods.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Pods by name, or workloads such as deploy/web, sts/db, ds/agent, rs/web-1, job/import; all pods if left out
    #[arg(value_name = "POD|KIND/NAME")]
    pub(super) names: Vec<String>,
    /// Pods that have these labels
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "names")]
    pub(super) selector: Option<String>,
    /// Pods of all namespaces
    #[arg(long, short = 'A', conflicts_with = "names")]
    pub(super) all_namespaces: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// wide: more columns; json: all that the reports say
    #[arg(long, short = 'o', value_name = "FORMAT")]
    pub(super) output: Option<OutputFormat>,
    /// Also run `hushpod-agent status` in the pods' own agents: wants the right to exec, and asks no pod of mode csi
    #[arg(long)]
    pub(super) live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    Wide,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The pod
    #[arg(value_name = "POD")]
    pub(super) pod: String,
    /// json: a list of report lines
    #[arg(long, short = 'o', value_name = "FORMAT")]
    pub(super) output: Option<OutputFormat>,
}

#[derive(Debug, Args)]
pub(super) struct WhoArgs {
    /// A reference, such as vault:secret/data/db; without the provider, of any
    #[arg(value_name = "REFERENCE", required_unless_present = "denied_by")]
    pub(super) reference: Option<String>,
    /// The store's version; any if left out
    #[arg(long, value_name = "VERSION")]
    pub(super) version: Option<String>,
    /// The operator's configuration (YAML): pods that hold what its deny refuses. kubectl hushpod deny tells their agents
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reference", "version", "from_audit"])]
    pub(super) denied_by: Option<PathBuf>,
    /// Audit lines (JSON, one a line; - for standard input) of pods that ever had it, instead of asking the cluster
    #[arg(long, value_name = "FILE")]
    pub(super) from_audit: Option<PathBuf>,
    /// Pods of all namespaces
    #[arg(long, short = 'A')]
    pub(super) all_namespaces: bool,
    /// json: for scripts
    #[arg(long, short = 'o', value_name = "FORMAT")]
    pub(super) output: Option<OutputFormat>,
}

#[derive(Debug, Args)]
pub(super) struct ControlArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// So many pods at a time: a number, or a share such as 10%
    #[arg(long, value_name = "N|P%", default_value = "100%", value_parser = Share::parse)]
    pub(super) max: Share,
    /// How long to wait before the next pods
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::quantity::parse_wait)]
    pub(super) pause: Duration,
    /// How long pods may take until they report that it is done
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(super) timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The generation
    #[arg(value_name = "GENERATION")]
    pub(super) generation: String,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Debug, Args)]
pub(super) struct AdvanceArgs {
    /// The wave's name: one that has begun goes on, and a pod goes along with it once. If left out, the one that has yet
    /// to end goes on, or a new one begins
    #[arg(long, value_name = "NAME")]
    pub(super) wave: Option<String>,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Debug, Args)]
pub(super) struct DenyArgs {
    /// The operator's configuration (YAML), whose deny counts
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    #[command(flatten)]
    pub(super) control: ControlArgs,
}

#[derive(Debug, Args)]
pub(super) struct DenialArgs {
    /// The text of a denial, or a pod, workload or AdmissionReview (YAML or JSON); - for standard input
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The operator's configuration, to say also what it makes of a manifest
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The service account that a manifest which names none runs as, and its namespace
    #[arg(long = "as", value_name = "NAMESPACE/ACCOUNT", default_value = "default/default")]
    pub(super) identity: Identity,
}

/// How many pods at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    Pods(usize),
    Percent(usize),
}

// === impl Share ===

impl Share {
    fn parse(text: &str) -> Result<Self, ParseError> {
        let number = |digits: &str, most: usize| digits.parse().ok().filter(|number| (1..=most).contains(number));
        let parsed = match text.strip_suffix('%') {
            Some(digits) => number(digits, 100).map(Self::Percent),
            None => number(text, usize::MAX).map(Self::Pods),
        };
        parsed
            .ok_or_else(|| rule("expected a number of pods from 1, such as 3, or a share from 1% to 100%, such as 10%"))
    }

    /// Of so many pods: at least one.
    pub(super) fn of(self, all: usize) -> usize {
        match self {
            Self::Pods(pods) => pods,
            Self::Percent(percent) => (all * percent).div_ceil(100).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn a_share_is_a_number_or_percents_and_never_nobody() {
        for (text, of_ten) in
            [("1", 1), ("25", 25), ("10%", 1), ("25%", 3), ("33%", 4), ("99%", 10), ("1%", 1), ("100%", 10)]
        {
            assert_eq!(Share::parse(text).unwrap().of(10), of_ten, "{text}");
        }
        for text in ["", "0", "0%", "101%", "-1", "ten", "1.5%", "%", "99999999999999999999", " 1"] {
            assert!(Share::parse(text).unwrap_err().to_string().contains("from 1% to 100%"), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        PluginCli::command().debug_assert();
        for line in [
            "status -A -o wide",
            "status deploy/web pod-1",
            "status -l app=web -o json --live",
            "history web-1 -n a",
            "who vault:secret/data/db --version 3 --from-audit -",
            "hold deploy/web --dry-run",
            "release -l app=web --max 10% --pause 30s --timeout 10m",
            "pin 4f1c deploy/web --context c --kubeconfig f",
            "advance deploy/web --max 1 --wave w1 --csi-namespace x",
            "explain-denial - --as a/b",
            "completion zsh",
        ] {
            let words = std::iter::once("kubectl-hushpod").chain(line.split(' '));
            PluginCli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for (line, part) in [("hold x --max 0", "10%"), ("status x -A", "cannot be used"), ("who", "REFERENCE")] {
            let words = std::iter::once("kubectl-hushpod").chain(line.split(' '));
            let error = PluginCli::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
