//! `hushpod render`: files in a directory, as a pod's volume has them.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::time::Duration;

use super::arguments::RenderArgs;
use super::error::LocalError;
use super::files::tell_left_out;
use super::followed::FollowedStores;
use super::output::note;
use super::wanted::WantedSecrets;
use crate::annotations::variable;
use crate::bundle::Bundle;
use crate::deliver::volume::AtomicVolume;

/// How long readers may be in the generation before, as in pods.
const GRACE: Duration = Duration::from_secs(1);

/// Writes the files, once or each time that they change.
///
/// # Errors
/// Everything that is missing, together; or why the directory cannot be written.
pub(super) async fn render(args: RenderArgs) -> Result<(), LocalError> {
    let RenderArgs { dir, watch, stores, copies } = args;
    let mut wanted = WantedSecrets::read(&stores, &[])?.caching(copies);
    wanted.bundle = files_of(&wanted)?;
    let (fetched, source) = wanted.fetch_for(watch).await?;
    let rendered = fetched.files(&|_| false)?;
    tell_left_out(&rendered);
    let files = rendered.files;
    let failed = |problem: String| LocalError::failed(format!("{}: {problem}", dir.display()));
    if !dir.is_dir() {
        DirBuilder::new().mode(0o700).create(&dir).map_err(|error| failed(error.kind().to_string()))?;
    }
    let mut volume = AtomicVolume::open(&dir, GRACE).map_err(|error| failed(error.to_string()))?;
    volume.write(&fetched.generation.id, &files).await.map_err(|error| failed(error.to_string()))?;
    // What was there before would lie there until the next time.
    volume.settle().await.map_err(|error| failed(error.to_string()))?;
    if let Some(mut source) = source {
        source.delivered(&fetched.generation.id);
        follow(FollowedStores::new(wanted, source, fetched), volume).await;
    }
    Ok(())
}

/// Writes what changes, until this process is ended: whatever is there then is complete.
async fn follow(mut stores: FollowedStores, mut volume: AtomicVolume) {
    loop {
        let fetched = stores.changed().await;
        let id = fetched.generation.id.clone();
        let written = match fetched.files(&|path| volume.has(path)) {
            Ok(rendered) => {
                tell_left_out(&rendered);
                volume.write(&id, &rendered.files).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match written {
            Ok(_) => stores.delivered(&id),
            Err(problem) => note(&format!("generation {id} is left out, and the files stay: {problem}")),
        }
        if let Err(error) = volume.settle().await {
            note(&error.to_string());
        }
    }
}

/// Variables that are named one by one are not files.
fn files_of(wanted: &WantedSecrets) -> Result<Bundle, LocalError> {
    let mut files = Bundle::default();
    for item in wanted.bundle.items.iter().filter(|item| variable(item).is_none()) {
        files.push(item.clone()).map_err(|error| LocalError::usage(error.to_string()))?;
    }
    if files.items.is_empty() {
        return Err(wanted.nothing("there are no files here", "write secrets: [{file: NAME, from: REFERENCE}]"));
    }
    Ok(files)
}
