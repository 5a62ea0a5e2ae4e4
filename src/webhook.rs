//! The admission webhook. Two doors: [`review`] decides on pods, and says all that stands in a pod's way; [`server`] answers
//! the API server, and asks it for `helm test` whether it is heard.

pub mod review;
pub mod server;

mod answer;
mod cache;
mod certificate;
mod containers;
mod csi_volume;
mod env_wrapper;
mod idle;
mod kubelet_env;
mod lint;
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
mod trial;
mod trust;
