//! Audit lines: who got which secret, when, and what came of it. One schema for all processes, told on src/audit.md, in
//! the log beside what people read. Never a value, a token or the id of a lease: the types have no place for one.

mod line;
mod log;

pub use line::{
    Admission, AskedRequest, AskedRequests, AuditEvent, AuditLine, AuditOutcome, MOST_NAME, MOST_TEXT, Program, SCHEMA,
    TARGET, Who, write_admission,
};
pub use log::AuditLog;

#[cfg(test)]
mod tests;
