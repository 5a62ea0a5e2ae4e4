//! The admission webhook. Three doors: [`review`] decides on pods, [`server`] answers the API server, and [`trial`] asks it
//! for `helm test`.

pub mod lint;
pub mod review;
pub mod server;
pub mod trial;

mod answer;
mod cache;
mod certificate;
mod containers;
mod csi_volume;
mod env_wrapper;
mod kubelet_env;
mod metrics;
mod mounts;
mod mutate;
mod patch;
mod permissions;
mod placement;
mod pod;
mod pod_view;
mod pod_volumes;
mod refusal;
mod registration;
mod reload;
mod replace;
mod resources;
mod selection;
mod trust;
