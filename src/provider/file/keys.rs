//! What encrypted files are opened with: age identities, from wherever they are kept (<https://age-encryption.org/v1>).
//!
//! The cryptography is the `age` crate's. Its errors' own texts are not used: they say nothing of what to write.

use std::cell::OnceCell;
use std::env;
#[cfg(feature = "cluster")]
use std::io;
use std::io::Read;
use std::path::PathBuf;

use age::armor::ArmoredReader;
use age::x25519::Identity;
use age::{DecryptError, Decryptor};
#[cfg(feature = "cluster")]
use age::{Encryptor, secrecy::ExposeSecret as _};
#[cfg(feature = "cluster")]
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::provider::{ErrorKind, ProviderError, auth};
use crate::secret::SecretValue;

/// Where the identities are.
#[derive(Debug, Clone)]
pub(super) enum KeySource {
    /// At another provider, which has told them or has yet to.
    Lent(Option<SecretValue>),
    /// In a file, as `age-keygen` writes it.
    File(PathBuf),
    /// Where `sops` looks for them on a person's machine: `SOPS_AGE_KEY`, `SOPS_AGE_KEY_FILE`, `sops/age/keys.txt` below
    /// the configuration directory.
    Environment,
}

/// Identities, read when the first encrypted file is seen, and for one batch.
pub(super) struct AgeKeys {
    source: KeySource,
    identities: OnceCell<Result<Vec<Identity>, ProviderError>>,
}

/// Why something is not opened. Of one file: the caller says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sealed {
    /// There are no identities to open it with.
    Keys(ProviderError),
    /// It was not made for any of them.
    NotForUs,
    /// Anything else that no other identity would put right.
    Broken(&'static str),
}

/// Each one costs a key agreement for each recipient of a file.
const MAX_IDENTITIES: usize = 32;
/// What an age file begins with, and the same in ASCII armor.
const BEGINNINGS: [&[u8]; 2] = [b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"];

/// Whether the bytes are an age file, by how they begin.
pub(super) fn is_age(bytes: &[u8]) -> bool {
    BEGINNINGS.iter().any(|beginning| bytes.trim_ascii_start().starts_with(beginning))
}

/// A person's own identities, from where [`KeySource::Environment`] has them: each opens what is sealed for them.
#[cfg(feature = "cluster")]
pub(crate) struct OwnKeys(AgeKeys, Vec<age::x25519::Recipient>);

// === impl OwnKeys ===

#[cfg(feature = "cluster")]
impl OwnKeys {
    /// Reads them; `None` if there are none.
    ///
    /// # Errors
    /// `Invalid` or `Unavailable`, with a message that names the file or line.
    pub(crate) fn load() -> Result<Option<Self>, ProviderError> {
        let texts = from_environment()?;
        if texts.is_empty() { Ok(None) } else { Self::of(&texts).map(Some) }
    }

    /// Those of these texts, as `age-keygen` writes them.
    ///
    /// # Errors
    /// `Invalid`, with a message that names the line.
    pub(crate) fn of(texts: &[SecretValue]) -> Result<Self, ProviderError> {
        let identities = parse(texts)?;
        let recipients = identities.iter().map(Identity::to_public).collect();
        let keys = AgeKeys { source: KeySource::Environment, identities: OnceCell::from(Ok(identities)) };
        Ok(Self(keys, recipients))
    }

    /// A digest that nobody makes without the first of these identities, and that says nothing of what it is of.
    pub(crate) fn mark(&self, bytes: &[u8]) -> String {
        let first = self.0.identities.get().and_then(|read| read.as_ref().ok()).and_then(|read| read.first());
        let key = first.map(Identity::to_string);
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref().map_or(b"", |key| key.expose_secret().as_bytes()));
        hex::encode(hmac::sign(&key, bytes))
    }

    /// An age file of what `write` writes. Plain bytes are in age's own buffer alone, piece by piece.
    ///
    /// # Errors
    /// What `write` says.
    pub(crate) fn seal(&self, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<Vec<u8>> {
        let recipients = self.1.iter().map(|recipient| recipient as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        let mut sealing = encryptor.wrap_output(Vec::new())?;
        write(&mut sealing)?;
        sealing.finish()
    }

    /// What was sealed; else why it does not open, to stand behind the file's name.
    ///
    /// # Errors
    /// As said.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<SecretValue, &'static str> {
        self.0.open(sealed).map_err(|why| match why {
            Sealed::NotForUs => "is encrypted for another age identity",
            Sealed::Broken(problem) => problem,
            Sealed::Keys(_) => "cannot be opened without an age identity",
        })
    }
}

// === impl AgeKeys ===

impl AgeKeys {
    pub(super) fn new(source: KeySource) -> Self {
        Self { source, identities: OnceCell::new() }
    }

    /// Opens an age file, binary or armored.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<SecretValue, Sealed> {
        let identities = self.identities.get_or_init(|| load(&self.source));
        let identities = identities.as_ref().map_err(|error| Sealed::Keys(error.clone()))?;
        let decryptor =
            Decryptor::new_buffered(ArmoredReader::new(sealed.trim_ascii_start())).map_err(|e| because(&e))?;
        if decryptor.is_scrypt() {
            return Err(Sealed::Broken(
                "is encrypted with a passphrase: encrypt it to an age recipient (age1…) instead",
            ));
        }
        let keys = identities.iter().map(|identity| identity as &dyn age::Identity);
        let mut reader = decryptor.decrypt(keys).map_err(|e| because(&e))?;
        // What is inside is never longer, so it is never moved and nothing stays behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
        reader.read_to_end(&mut plain).map_err(|_| Sealed::Broken("is damaged: its end is missing or was changed"))?;
        Ok(SecretValue::new(std::mem::take(&mut *plain)))
    }
}

fn because(error: &DecryptError) -> Sealed {
    match error {
        DecryptError::NoMatchingKeys => Sealed::NotForUs,
        DecryptError::InvalidMac => Sealed::Broken("is damaged: its age header was changed"),
        DecryptError::ExcessiveWork { .. } => Sealed::Broken("is encrypted with a passphrase"),
        DecryptError::UnknownFormat => Sealed::Broken("is of a newer age format than this agent knows"),
        _ => Sealed::Broken("is not a whole age file"),
    }
}

fn load(source: &KeySource) -> Result<Vec<Identity>, ProviderError> {
    let texts = match source {
        KeySource::Lent(Some(text)) => vec![text.clone()],
        KeySource::Lent(None) => {
            return Err(ProviderError::new(ErrorKind::Unavailable, "its identity was not read yet"));
        }
        KeySource::File(path) => vec![auth::secret_file(path, "age identity")?],
        KeySource::Environment => from_environment()?,
    };
    if texts.is_empty() {
        return Err(invalid(
            "it is encrypted, and the provider has no age identity: the operator sets identity: \"<provider>:<path>#<key>\" \
             for pods, or identityFile: on a person's machine, where SOPS_AGE_KEY and SOPS_AGE_KEY_FILE count too",
        ));
    }
    parse(&texts)
}

fn from_environment() -> Result<Vec<SecretValue>, ProviderError> {
    let mut texts: Vec<_> = auth::environment("SOPS_AGE_KEY").into_iter().collect();
    if let Some(path) = path_of("SOPS_AGE_KEY_FILE") {
        texts.push(auth::secret_file(&path, "age identity of SOPS_AGE_KEY_FILE")?);
    }
    if let Some(file) = keys_file().filter(|file| file.is_file()) {
        texts.push(auth::secret_file(&file, "age identity")?);
    }
    Ok(texts)
}

/// Where [`KeySource::Environment`] looks, whether there is a file or not.
pub(super) fn usual_files() -> Vec<PathBuf> {
    path_of("SOPS_AGE_KEY_FILE").into_iter().chain(keys_file()).collect()
}

fn keys_file() -> Option<PathBuf> {
    let config = path_of("XDG_CONFIG_HOME").or_else(|| env::home_dir().map(|home| home.join(".config")));
    Some(config?.join("sops/age/keys.txt"))
}

fn path_of(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// One identity per line of each text; empty lines and comments are passed over.
fn parse(texts: &[SecretValue]) -> Result<Vec<Identity>, ProviderError> {
    let mut identities = Vec::new();
    for text in texts {
        let known = identities.len();
        let text = text.expose_str().ok_or_else(|| invalid("the age identity is not UTF-8"))?;
        let lines = text.lines().map(str::trim).enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let problem = match line.parse() {
                Ok(_) if identities.len() == MAX_IDENTITIES => "is one too many: at most 32 are tried",
                Ok(identity) => {
                    identities.push(identity);
                    continue;
                }
                Err(_) if line.starts_with("AGE-PLUGIN-") => "is of a plugin, and no plugin runs here",
                Err(_) if line.starts_with("AGE-SECRET-KEY-PQ-") => "is a post-quantum one, which is not supported yet",
                Err(_) if line.starts_with("-----BEGIN") => "is a key of SSH, or encrypted itself",
                Err(_) => "is not a key",
            };
            return Err(invalid(&format!(
                "line {} of the age identity {problem}: expected keys such as AGE-SECRET-KEY-1…, one per line",
                index + 1
            )));
        }
        if identities.len() == known {
            return Err(invalid("the age identity has no key in it: expected AGE-SECRET-KEY-1…"));
        }
    }
    Ok(identities)
}

fn invalid(problem: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Invalid, problem)
}
