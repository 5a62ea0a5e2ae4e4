//! Environment variables: which names a secret may have, and how large one may be.

/// The kernel's limit for one `NAME=value` with the byte that ends it (`MAX_ARG_STRLEN`, execve(2)).
const MAX_VARIABLE_BYTES: usize = 128 * 1024;

/// Most bytes of a variable's name.
const MAX_NAME_BYTES: usize = 255;

/// Most bytes of all variables together. The kernel shares a quarter of the stack's limit, usually 2 MiB, between
/// arguments and environment (execve(2)); the rest is the container's own.
pub const MAX_TOTAL_BYTES: usize = 1024 * 1024;

/// What the variables of the application say of themselves: the generation that they came from …
pub const GENERATION: &str = "HUSHPOD_GENERATION";
/// … and where the files are.
pub const FILES: &str = "HUSHPOD_FILES";
/// No other variable of this prefix reaches the application.
pub const OUR_PREFIX: &[u8] = b"HUSHPOD_";

/// Variables that change which code runs, or where the platform's own clients connect to: a writer of secrets
/// must not be able to take the process over. A `*` at the end stands for any characters. src/exec.md has the same list.
pub const RESERVED: &[&str] = &[
    "BASHOPTS",
    "BASH_ENV",
    "BASH_FUNC_*",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "HUSHPOD_*",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "KUBERNETES_*",
    "LD_*",
    "LOCPATH",
    "MALLOC_TRACE",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RESOLV_HOST_CONF",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "_JAVA_OPTIONS",
];

/// What to do about one of [`RESERVED`].
const RESERVED_ADVICE: &str =
    "it decides which code runs, and no secret may; take another name, or deliver it as a file";

/// Why a secret cannot be a variable. Says neither name nor value: [`VariableError::of`] is told what to call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableError {
    /// No shell could say the name.
    Name,
    /// The name is too long.
    LongName,
    /// The name is one of [`RESERVED`].
    Reserved(&'static str),
    /// The value has a NUL byte.
    Nul,
    /// Name and value have as many bytes together.
    Large(usize),
}

impl VariableError {
    /// One sentence that says why not, and what would be accepted. `what` is the variable: its name, or where it stands.
    #[must_use]
    pub fn of(self, what: &str) -> String {
        match self {
            Self::Name => {
                format!("{what} is not a variable's name: expected letters, digits and '_', and no digit first")
            }
            Self::LongName => format!("{what} is too long: a variable's name has at most {MAX_NAME_BYTES} bytes"),
            Self::Reserved(reserved) => format!("{what} is reserved ({reserved}): {RESERVED_ADVICE}"),
            Self::Nul => format!("{what} has a NUL byte, which no variable can hold: deliver it as a file"),
            Self::Large(bytes) => format!(
                "{what} takes {bytes} bytes, over the kernel's limit of {MAX_VARIABLE_BYTES} for one variable: deliver \
                 it as a file"
            ),
        }
    }

    /// The same where the name is a store's, and not to be told: no entry of [`RESERVED`] either.
    #[must_use]
    pub fn of_unnamed(self, what: &str) -> String {
        match self {
            Self::Reserved(_) => format!("{what} is reserved: {RESERVED_ADVICE}"),
            error => error.of(what),
        }
    }
}

/// Checks the name of a variable that a secret is to fill.
///
/// # Errors
/// [`VariableError`] says why not.
pub fn check_name(name: &str) -> Result<(), VariableError> {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let mut bytes = name.bytes();
    if !bytes.next().is_some_and(letter) || !bytes.all(|byte| letter(byte) || byte.is_ascii_digit()) {
        return Err(VariableError::Name);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(VariableError::LongName);
    }
    let is_reserved = |reserved: &&&str| match reserved.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == **reserved,
    };
    RESERVED.iter().find(is_reserved).map_or(Ok(()), |reserved| Err(VariableError::Reserved(reserved)))
}

/// Checks one variable as the kernel will.
///
/// # Errors
/// [`VariableError`] says why not.
pub fn check_value(name: &str, value: &[u8]) -> Result<(), VariableError> {
    // The '=' and the byte at the end.
    let bytes = name.len() + value.len() + 2;
    if value.contains(&0) {
        Err(VariableError::Nul)
    } else if bytes > MAX_VARIABLE_BYTES {
        Err(VariableError::Large(bytes))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p9_names_are_a_shells_and_none_that_decides_which_code_runs() {
        for name in ["HF_TOKEN", "_", "a", "db1", "LDAP_PASSWORD", "PATHS", "ENVIRONMENT", "PYTHON"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for (name, part) in [
            ("", "not a variable's name"),
            ("1A", "no digit first"),
            ("A-B", "letters, digits"),
            ("tls.crt", "letters, digits"),
            ("A=B", "letters, digits"),
            ("Ä", "letters, digits"),
            ("PATH", "reserved (PATH)"),
            ("LD_PRELOAD", "reserved (LD_*)"),
            ("HUSHPOD_PLAN", "reserved (HUSHPOD_*)"),
            ("BASH_ENV", "reserved"),
            ("IFS", "reserved"),
            ("GLIBC_TUNABLES", "reserved"),
            ("KUBERNETES_SERVICE_HOST", "reserved"),
        ] {
            let problem = check_name(name).unwrap_err().of(name);
            assert!(problem.contains(part), "{name}: {problem}");
        }
        assert!(check_name(&"A".repeat(256)).is_err());
        assert!(RESERVED.is_sorted(), "easier to read");
    }

    #[test]
    fn p5_p9_values_are_what_the_kernel_takes_and_no_error_shows_one() {
        for value in [&b""[..], b"a'b\"c$d\n\\", b"\xff\xfe", &vec![b'x'; MAX_VARIABLE_BYTES - 3]] {
            assert_eq!(check_value("A", value), Ok(()));
        }
        for value in [b"canary\0".to_vec(), b"canary".repeat(MAX_VARIABLE_BYTES / 6)] {
            let problem = check_value("A", &value).unwrap_err().of("A");
            assert!(problem.contains("deliver it as a file") && !problem.contains("canary"), "{problem}");
        }
    }
}
