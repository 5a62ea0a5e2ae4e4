//! What was found: faults, and what is no fault but should be known.

use serde::Serialize;

use crate::bundle::TextPosition;
use crate::local::source_file::{FileFault, SourceFile};
use crate::sentence::one_line;

/// Most findings that are told: a person who fixed so many asks again.
const MOST: usize = 10_000;

/// Something that was found in a file. Says names, annotations and references of it, and none of its other values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct FileFinding {
    /// As it is told: relative to the working directory, where it lies below it.
    pub(super) file: String,
    /// Counted from 1.
    pub(super) line: u64,
    /// In characters, counted from 1.
    pub(super) column: u64,
    pub(super) rule: FindingKind,
    /// One sentence.
    pub(super) problem: String,
}

/// Which kind of thing: names that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FindingKind {
    Yaml,
    Annotation,
    Pod,
    Reference,
    Policy,
    Configuration,
    Project,
    Missing,
    Misplaced,
    Advice,
    Skipped,
}

/// Whether somebody may have something.
#[derive(Debug, Serialize)]
pub(super) struct RuleAnswer {
    pub(super) reference: String,
    /// In the one form that the store knows; `None` if it has none.
    pub(super) request: Option<String>,
    pub(super) allowed: bool,
    /// The place of the rule that decides; `None` if none does.
    pub(super) rule: Option<String>,
    pub(super) sentence: String,
}

/// All that there is to say.
#[derive(Debug, Default, Serialize)]
pub(super) struct Checked {
    pub(super) faults: Vec<FileFinding>,
    pub(super) warnings: Vec<FileFinding>,
    pub(super) answers: Vec<RuleAnswer>,
    /// The file whose rules gave them.
    #[serde(skip)]
    pub(super) rules: String,
    /// How many were looked into.
    pub(super) files: usize,
    /// How many ask for secrets.
    pub(super) pods: usize,
}

// === impl FindingKind ===

impl FindingKind {
    pub(super) const ALL: [Self; 11] = [
        Self::Yaml,
        Self::Annotation,
        Self::Pod,
        Self::Reference,
        Self::Policy,
        Self::Configuration,
        Self::Project,
        Self::Missing,
        Self::Misplaced,
        Self::Advice,
        Self::Skipped,
    ];

    /// As `ruleId` has it, and JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Annotation => "annotation",
            Self::Pod => "pod",
            Self::Reference => "reference",
            Self::Policy => "policy",
            Self::Configuration => "configuration",
            Self::Project => "project",
            Self::Missing => "missing",
            Self::Misplaced => "misplaced",
            Self::Advice => "advice",
            Self::Skipped => "skipped",
        }
    }

    /// What all findings of it have in common, in one sentence.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Yaml => "The file cannot be read as YAML.",
            Self::Annotation => "An annotation cannot be understood.",
            Self::Pod => "Something in the pod stands in the way of its secrets.",
            Self::Reference => "A reference that its store would never answer, or to a store that is not there.",
            Self::Policy => "The operator's rules are against it.",
            Self::Configuration => "The operator's configuration cannot be used.",
            Self::Project => "The project's file cannot be used.",
            Self::Missing => "The store has no such secret, version or key.",
            Self::Misplaced => "An annotation where hushpod does not look.",
            Self::Advice => "It works, and should be known.",
            Self::Skipped => "The file was not looked into.",
        }
    }

    /// Of what the webhook calls it.
    pub(super) fn of_reason(reason: &str) -> Self {
        match reason {
            "annotation" => Self::Annotation,
            "plan" => Self::Reference,
            "policy" => Self::Policy,
            "advice" => Self::Advice,
            _ => Self::Pod,
        }
    }
}

// === impl Checked ===

impl Checked {
    pub(super) fn fault(&mut self, file: &SourceFile, rule: FindingKind, fault: FileFault) {
        push(&mut self.faults, file, rule, fault);
    }

    pub(super) fn warn(&mut self, file: &SourceFile, rule: FindingKind, fault: FileFault) {
        push(&mut self.warnings, file, rule, fault);
    }

    /// Whether nothing is wrong, and everything allowed.
    pub(super) fn is_fine(&self) -> bool {
        self.faults.is_empty() && self.answers.iter().all(|answer| answer.allowed)
    }

    /// In the order of files and lines, each once.
    pub(super) fn sort(&mut self) {
        for findings in [&mut self.faults, &mut self.warnings] {
            findings.sort();
            findings.dedup();
        }
    }
}

fn push(findings: &mut Vec<FileFinding>, file: &SourceFile, rule: FindingKind, fault: FileFault) {
    if findings.len() < MOST {
        let FileFault { at, problem } = fault;
        let ((line, column), problem) = (position(at), one_line(&problem));
        findings.push(FileFinding { file: file.shown.clone(), line, column, rule, problem });
    }
}

fn position(at: Option<TextPosition>) -> TextPosition {
    at.map_or((1, 1), |(line, column)| (line.max(1), column.max(1)))
}
