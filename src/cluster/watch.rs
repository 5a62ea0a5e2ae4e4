//! Watches that back off: what an API server has told counts, and not that it is about to be asked.

use std::fmt::Debug;
use std::future::ready;

use futures_util::{Stream, TryStreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// What is told of the objects of `api`, for ever. Lists begin without [`Event::Init`]: that comes before each question, so
/// a list that fails again and again would begin its pauses anew, and look like one that went well. A list that fails ends
/// with its error.
pub fn followed<K>(api: Api<K>, settings: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, settings).try_filter(|event| ready(!matches!(event, Event::Init))).default_backoff()
}
