//! How each reader has a value written, and which values it cannot be told.

use crate::deliver::render::buffer::Buffer;
use crate::deliver::render::format::{quote, single_quoted};
use crate::local::arguments::ExportFormat;
use crate::local::error::LocalError;
use crate::local::files::NamedValues;
use crate::parse_error::{ParseError, rule};
use crate::secret::SecretValue;

/// Docker reads lines of at most this many bytes (Go's `bufio.MaxScanTokenSize`).
const DOCKER_LINE: usize = 64 * 1024;
/// Most bytes of GitLab's report, and most variables of its smallest plan
/// (<https://docs.gitlab.com/ci/yaml/artifacts_reports/#artifactsreportsdotenv>).
const GITLAB_BYTES: usize = 5 * 1024;
const GITLAB_VARIABLES: usize = 20;

const NOT_TEXT: &str = "is not UTF-8, which this format has to be: take --format shell, or a file";
const OTHER: &str = "take --format shell or json, or a file";

/// All variables in a format.
///
/// # Errors
/// Every value that it cannot hold, together, and none of their bytes.
pub(super) fn encode(format: ExportFormat, found: &NamedValues) -> Result<SecretValue, LocalError> {
    let mut out = Buffer::default();
    let mut errors = Vec::new();
    if format == ExportFormat::Json {
        out.push_str("{");
    }
    for (index, (name, value)) in found.iter().enumerate() {
        if format == ExportFormat::Json {
            out.push_str(if index == 0 { "\n  " } else { ",\n  " });
        }
        if let Err(refusal) = one(format, name, value.expose(), &mut out) {
            errors.push(LocalError::failed(format!("{name} {refusal}")).about(vec![name.clone()]));
        }
    }
    if format == ExportFormat::Json {
        out.push_str("\n}\n");
    }
    if format == ExportFormat::Gitlab && (out.len() > GITLAB_BYTES || found.len() > GITLAB_VARIABLES) {
        let problem = format!(
            "GitLab's report has at most {GITLAB_BYTES} bytes and {GITLAB_VARIABLES} variables: take --only, or \
             `hushpod run` in each job"
        );
        errors.push(LocalError::failed(problem));
    }
    if errors.is_empty() { Ok(out.into_value()) } else { Err(LocalError::all(errors)) }
}

fn one(format: ExportFormat, name: &str, value: &[u8], out: &mut Buffer) -> Result<(), ParseError> {
    match format {
        ExportFormat::Shell => shell(name, value, out),
        ExportFormat::Fish => fish(name, value, out),
        // Its file is written elsewhere.
        ExportFormat::Github => {}
        format => {
            let text = std::str::from_utf8(value).map_err(|_| rule(NOT_TEXT))?;
            match format {
                // It hands variables on as JSON.
                ExportFormat::Direnv => shell(name, value, out),
                ExportFormat::Dotenv => dotenv(name, text, out)?,
                ExportFormat::Docker => docker(name, text, out)?,
                ExportFormat::Compose => compose(name, text, out)?,
                ExportFormat::Systemd => systemd(name, text, out),
                ExportFormat::Properties => properties(name, text, out),
                ExportFormat::Gitlab => gitlab(name, text, out)?,
                ExportFormat::Json => {
                    double_quoted(name, out);
                    out.push_str(": ");
                    double_quoted(text, out);
                }
                _ => {
                    // A key such as NO is a truth value to some.
                    quote(out, name);
                    out.push_str(": ");
                    quote(out, text);
                    out.push_str("\n");
                }
            }
        }
    }
    Ok(())
}

/// POSIX.1-2024, Shell Command Language, 2.2.2.
fn shell(name: &str, value: &[u8], out: &mut Buffer) {
    out.push_str("export ");
    out.push_str(name);
    out.push_str("=");
    single_quoted(out, value);
    out.push_str("\n");
}

/// <https://fishshell.com/docs/current/language.html#quotes>
fn fish(name: &str, value: &[u8], out: &mut Buffer) {
    out.push_str("set -gx ");
    out.push_str(name);
    out.push_str(" '");
    for byte in value {
        if matches!(byte, b'\'' | b'\\') {
            out.push_str("\\");
        }
        out.push(&[*byte]);
    }
    out.push_str("'\n");
}

fn quoted(name: &str, quote: &str, text: &str, out: &mut Buffer) {
    for part in [name, "=", quote, text, quote, "\n"] {
        out.push_str(part);
    }
}

/// What a POSIX shell, python-dotenv and Node's dotenv read alike: they agree on little.
fn dotenv(name: &str, text: &str, out: &mut Buffer) -> Result<(), ParseError> {
    let refused =
        |what: &str| Err(rule(format!("has {what}, which readers of dotenv files take for different things: {OTHER}")));
    if text.contains('\r') {
        return refused("a carriage return");
    }
    // Python fills this in even between single quotes.
    if text.contains("${") {
        return refused("a ${");
    }
    if !text.contains('\'') {
        if text.contains("\\\\") || text.ends_with('\\') {
            return refused("a backslash before another one or at its end");
        }
        quoted(name, "'", text, out);
    } else if text.contains(['"', '$', '`', '\\']) {
        return refused("a ' beside one of \" $ ` \\");
    } else {
        quoted(name, "\"", text, out);
    }
    Ok(())
}

/// <https://docs.docker.com/reference/cli/docker/container/run/#env>: a line is a variable, and nothing is a quote.
fn docker(name: &str, text: &str, out: &mut Buffer) -> Result<(), ParseError> {
    if text.contains(['\n', '\r']) {
        return Err(rule(
            "has a line end, which a file for docker --env-file cannot hold: take `hushpod run -- docker run -e NAME`, \
             or a file",
        ));
    }
    if name.len() + 1 + text.len() >= DOCKER_LINE {
        return Err(rule(format!(
            "makes a line of {DOCKER_LINE} bytes or more, which docker does not read: deliver it as a file"
        )));
    }
    quoted(name, "", text, out);
    Ok(())
}

/// <https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax>
fn compose(name: &str, text: &str, out: &mut Buffer) -> Result<(), ParseError> {
    if !text.contains(['\'', '\\', '\r']) {
        quoted(name, "'", text, out);
        return Ok(());
    }
    if text.contains('$') {
        let problem = format!("has a $ beside one of ' \\ and a carriage return, which compose would fill in: {OTHER}");
        return Err(rule(problem));
    }
    out.push_str(name);
    out.push_str("=\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            letter => out.push_char(letter),
        }
    }
    out.push_str("\"\n");
    Ok(())
}

/// systemd.exec(5), `EnvironmentFile=`.
fn systemd(name: &str, text: &str, out: &mut Buffer) {
    out.push_str(name);
    out.push_str("=\"");
    for letter in text.chars() {
        if matches!(letter, '"' | '\\' | '`' | '$') {
            out.push_str("\\");
        }
        out.push_char(letter);
    }
    out.push_str("\"\n");
}

/// `java.util.Properties.load`.
fn properties(name: &str, text: &str, out: &mut Buffer) {
    out.push_str(name);
    out.push_str("=");
    for (index, letter) in text.chars().enumerate() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0c' => out.push_str("\\f"),
            ' ' if index == 0 => out.push_str("\\ "),
            ' '..='~' => out.push_char(letter),
            letter => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push_str("\n");
}

fn gitlab(name: &str, text: &str, out: &mut Buffer) -> Result<(), ParseError> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '\'' | '"' | '$'))
    {
        return Err(rule(
            "is empty or has white space, a quote or a $, which GitLab's report does not promise to keep: run the job's \
             command with `hushpod run`",
        ));
    }
    quoted(name, "", text, out);
    Ok(())
}

/// RFC 8259, 7.
fn double_quoted(text: &str, out: &mut Buffer) {
    out.push_str("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            letter if letter < ' ' => {
                out.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => out.push_char(letter),
        }
    }
    out.push_str("\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: ExportFormat, value: &[u8]) -> Result<String, String> {
        let found = NamedValues::from([("A".to_owned(), SecretValue::new(value.to_vec()))]);
        let text = encode(format, &found).map_err(|error| error.problem)?;
        Ok(text.expose_str().unwrap_or("binary").to_owned())
    }

    #[test]
    fn p9_each_format_holds_a_value_or_says_why_not() {
        use ExportFormat::{Compose, Direnv, Docker, Dotenv, Fish, Gitlab, Json, Properties, Shell, Systemd, Yaml};
        for (format, value, expected) in [
            (Shell, "it's", Ok("export A='it'\\''s'\n")),
            (Fish, "it's \\n", Ok("set -gx A 'it\\'s \\\\n'\n")),
            (Dotenv, "a b#c", Ok("A='a b#c'\n")),
            (Dotenv, "it's", Ok("A=\"it's\"\n")),
            (Dotenv, "a\\n", Ok("A='a\\n'\n")),
            (Dotenv, "it's $x", Err("beside one of")),
            (Dotenv, "a\\\\b", Err("backslash")),
            (Dotenv, "${x}", Err("a ${")),
            (Dotenv, "a\r", Err("carriage return")),
            (Docker, " 'a' #b", Ok("A= 'a' #b\n")),
            (Docker, "a\nb", Err("line end")),
            (Compose, "$a\nb", Ok("A='$a\nb'\n")),
            (Compose, "it's \\ \"", Ok("A=\"it's \\\\ \\\"\"\n")),
            (Compose, "it's $a", Err("compose would fill in")),
            (Systemd, "$a\n\"'\\`", Ok("A=\"\\$a\n\\\"'\\\\\\`\"\n")),
            (Properties, " a:ä\u{1f600}\n", Ok("A=\\ a:\\u00e4\\ud83d\\ude00\\n\n")),
            (Json, "a\"\u{1}\u{2028}", Ok("{\n  \"A\": \"a\\\"\\u0001\u{2028}\"\n}\n")),
            (Yaml, "a\"\u{85}\u{2028}", Ok("\"A\": \"a\\\"\\u0085\\u2028\"\n")),
            (Gitlab, "abc=", Ok("A=abc=\n")),
            (Gitlab, "a b", Err("white space")),
            (Gitlab, "", Err("is empty")),
        ] {
            let found = written(format, value.as_bytes());
            match expected {
                Ok(text) => assert_eq!(found.as_deref(), Ok(text), "{format:?}"),
                Err(part) => assert!(found.clone().is_err_and(|told| told.contains(part)), "{format:?}: {found:?}"),
            }
        }
        for format in [Direnv, Dotenv, Docker, Compose, Json, Yaml, Properties, Systemd, Gitlab] {
            let error = written(format, b"canary\xff").unwrap_err();
            assert!(error.contains("not UTF-8") && !error.contains("canary"), "{error}");
        }
        assert!(written(Shell, b"\xff").is_ok() && written(Fish, b"\xff").is_ok());
    }

    #[test]
    fn p9_limits_of_the_readers_are_held() {
        let most = vec![b'x'; DOCKER_LINE - 3];
        assert!(written(ExportFormat::Docker, &most).is_ok());
        assert!(written(ExportFormat::Docker, &[most, vec![b'x']].concat()).is_err());
        let most = vec![b'x'; GITLAB_BYTES - 3];
        assert!(written(ExportFormat::Gitlab, &most).is_ok());
        assert!(written(ExportFormat::Gitlab, &[most, vec![b'x']].concat()).is_err());
        let many = |count: usize| (0..count).map(|n| (format!("A{n}"), SecretValue::from("x"))).collect();
        assert!(encode(ExportFormat::Gitlab, &many(GITLAB_VARIABLES)).is_ok());
        assert!(encode(ExportFormat::Gitlab, &many(GITLAB_VARIABLES + 1)).is_err());
    }
}
