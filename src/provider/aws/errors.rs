//! AWS's refusals, in our own words.
//!
//! AWS's text may hold a secret value. We search it for known words, and never pass it on.

use std::fmt;

use serde::Deserialize;

use crate::provider::ErrorKind;
use crate::provider::http::{Failure, Response, Scope, contains_ignore_case, frame};

/// An error's frame, as both services write it; also an entry in a batch's list of errors.
#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "__type")]
    kind: String,
}

/// A refusal: the error's name, and the text it may be searched in.
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) text: &'a [u8],
    pub(super) retry_after: Option<std::time::Duration>,
}

/// What was asked, for messages.
#[derive(Clone, Copy)]
pub(super) struct CallContext<'a> {
    /// The IAM action, such as `secretsmanager:GetSecretValue`.
    pub(super) action: &'a str,
    /// Of what.
    pub(super) what: &'a str,
    /// Whom AWS knows the caller as.
    pub(super) who: &'a str,
    pub(super) address: &'a dyn fmt::Display,
}

// === impl Failure ===

impl Failure {
    /// The identity may not do this one thing: others may be allowed.
    pub(super) fn is_denial(&self) -> bool {
        self.scope == Scope::Call && self.error.kind == ErrorKind::Denied
    }

    /// One of several things asked for with one call spoils it for the others.
    pub(super) fn is_about_one(&self) -> bool {
        self.scope == Scope::Call && matches!(self.error.kind, ErrorKind::Denied | ErrorKind::Invalid)
    }
}

// === impl Refusal ===

impl<'a> Refusal<'a> {
    /// A whole answer that is a refusal.
    ///
    /// <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>
    pub(super) fn of(response: &'a Response) -> Self {
        let header = response.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        let frame = || frame::<Frame>(&response.body).map(|frame| frame.kind);
        let code = header.map(str::to_owned).or_else(frame).unwrap_or_default();
        // Before it there may be a namespace, behind it an address.
        let code = code.split(':').next().and_then(|code| code.rsplit('#').next()).unwrap_or_default().to_owned();
        Self { status: response.status.as_u16(), code, text: &response.body, retry_after: response.retry_after }
    }

    fn contains(&self, words: &str) -> bool {
        contains_ignore_case(self.text, words)
    }

    /// Whether it asks for patience.
    pub(super) fn is_throttling(&self) -> bool {
        const CODES: [&str; 4] =
            ["ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"];
        self.status == 429 || (self.status != 200 && CODES.contains(&self.code.as_str()))
    }

    /// What the refusal means.
    pub(super) fn explain(&self, asked: CallContext<'_>) -> Failure {
        let CallContext { action, what, who, address } = asked;
        let call = |kind, message: String| Failure::new(kind, message);
        match self.code.as_str() {
            _ if self.is_throttling() => self.throttled(asked),
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "RequestTimeTooSkewed"
            | "RequestExpired"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "IncompleteSignature"
            | "IncompleteSignatureException" => self.unknown_caller(who),
            "AccessDeniedException" | "AccessDenied" => call(ErrorKind::Denied, self.denied(asked)),
            "DecryptionFailure" | "InvalidKeyId" => call(
                ErrorKind::Denied,
                format!(
                    "{what} cannot be decrypted: its KMS key is disabled or gone, or {who} lacks kms:Decrypt on it"
                ),
            ),
            "ResourceNotFoundException" | "ParameterNotFound" | "ParameterVersionNotFound" => {
                call(ErrorKind::NotFound, format!("{what} does not exist"))
            }
            "InvalidRequestException" if self.contains("marked for deletion") || self.contains("marked deleted") => {
                call(ErrorKind::NotFound, format!("{what} is marked for deletion"))
            }
            "InvalidRequestException" | "InvalidParameterException" | "ValidationException" => {
                call(ErrorKind::Invalid, format!("{what} is refused as a bad request: check its name and version"))
            }
            // What has no name is not AWS's own, but something's in front of it.
            code if matches!(self.status, 401 | 403) && !code.is_empty() => call(ErrorKind::Denied, self.denied(asked)),
            "" if self.status < 500 => call(
                ErrorKind::Unavailable,
                format!(
                    "{address} answers {action} of {what} with a {} that is not AWS's: check the endpoint, and what \
                     stands in front of it",
                    self.status
                ),
            ),
            _ => call(
                ErrorKind::Unavailable,
                format!("{address} fails at {action} of {what} with status {}", self.status),
            ),
        }
    }

    fn throttled(&self, CallContext { action, address, .. }: CallContext<'_>) -> Failure {
        let kind = ErrorKind::Throttled { retry_after: self.retry_after };
        let message = format!(
            "{address} asks for patience at {action}: the account's rate is used up; set a longer refresh, or have its \
             quota raised"
        );
        Failure::new(kind, message).with(Scope::Store)
    }

    /// The signature says who calls: AWS does not know them, or not any more, or not at this hour.
    fn unknown_caller(&self, who: &str) -> Failure {
        let is_skewed = matches!(self.code.as_str(), "RequestTimeTooSkewed" | "RequestExpired")
            || self.contains("signature expired")
            || self.contains("signature not yet current");
        if is_skewed {
            let message =
                "AWS refuses a signature of this time: the machine's clock is wrong by more than five minutes";
            return Failure::denied(message).with(Scope::Store);
        }
        let problem = match self.code.as_str() {
            "ExpiredTokenException" | "ExpiredToken" => "have expired",
            "InvalidSignatureException" | "SignatureDoesNotMatch" => {
                "do not fit together: the secret access key is not that of the access key id"
            }
            _ => "are unknown to AWS: the access key was deleted, or is of another partition or region",
        };
        let whose = if who.contains("credentials") { who.to_owned() } else { format!("the credentials of {who}") };
        Failure::denied(format!("{whose} {problem}")).with(Scope::Login)
    }

    fn denied(&self, CallContext { action, what, who, .. }: CallContext<'_>) -> String {
        if self.contains("kms:") || self.contains("ciphertext") || self.contains("access to kms") {
            return format!("{what} is denied to {who}: it lacks kms:Decrypt on its KMS key");
        }
        format!("{what} is denied to {who}: it lacks {action} on it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_aws_does_not_know_is_named_once() {
        let role = "arn:aws:iam::123456789012:role/web";
        for (who, code, told) in [
            ("the credentials of the environment", "ExpiredToken", "the credentials of the environment have expired"),
            (
                "the profile's credentials",
                "UnrecognizedClientException",
                "the profile's credentials are unknown to AWS",
            ),
            (role, "ExpiredTokenException", &format!("the credentials of {role} have expired")),
        ] {
            let refusal = Refusal { status: 403, code: code.to_owned(), text: b"", retry_after: None };
            let asked = CallContext { action: "ssm:GetParameters", what: "parameter /x", who, address: &"https://aws" };
            let failure = refusal.explain(asked);
            assert!(failure.error.message.starts_with(told), "{failure}");
        }
    }
}
