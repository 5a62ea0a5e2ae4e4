//! `hushpod-agent exec` for applications' containers: copied once into a volume that they mount, before the gate opens.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tracing::debug;

use super::error::AgentError;
use crate::contract::AGENT_NAME;

/// While it is being copied: a process that starts then must not find half of it.
const COPYING: &str = ".hushpod-agent-new";

/// Copies `program` into `bin`, if there is such a volume.
///
/// A restarted agent replaces it, since its image may be another one; who runs the old one keeps that.
pub(super) fn provide(program: &Path, bin: &Path) -> Result<(), AgentError> {
    if !bin.is_dir() {
        return Ok(());
    }
    let start = std::time::Instant::now();
    let failed = |source| AgentError::Program { program: program.to_owned(), bin: bin.to_owned(), source };
    let bytes = copy(program, bin).map_err(failed)?;
    debug!(bytes, milliseconds = start.elapsed().as_millis(), "applications can be started through hushpod-agent exec");
    Ok(())
}

fn copy(program: &Path, bin: &Path) -> io::Result<u64> {
    let copying = bin.join(COPYING);
    // Left by an agent that died meanwhile, and perhaps of another mode.
    match fs::remove_file(&copying) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let bytes = fs::copy(program, &copying)?;
    // Whatever the umask is: it is not a secret, and nobody is to write it.
    fs::set_permissions(&copying, fs::Permissions::from_mode(0o555))?;
    fs::rename(&copying, bin.join(AGENT_NAME))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_there_in_one_step_and_nobody_may_write_it() {
        let dir = tempfile::tempdir().unwrap();
        let (program, bin) = (dir.path().join("program"), dir.path().join("bin"));
        provide(&program, &bin).unwrap();
        assert!(!bin.exists(), "there is no volume, so nobody asked");
        fs::create_dir(&bin).unwrap();
        let error = provide(&program, &bin).unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        for content in ["first", "second"] {
            fs::write(&program, content).unwrap();
            fs::write(bin.join(COPYING), "half").unwrap();
            provide(&program, &bin).unwrap();
            let copied = bin.join(AGENT_NAME);
            assert_eq!(fs::read_to_string(&copied).unwrap(), content);
            assert_eq!(fs::metadata(&copied).unwrap().permissions().mode() & 0o777, 0o555);
        }
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
    }
}
