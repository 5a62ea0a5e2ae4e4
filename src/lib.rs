//! hushpod: secrets for Kubernetes pods that never touch etcd.
//!
//! Data flows one way: pod annotations become a [`bundle::Bundle`] and [`options::Options`]; with the
//! operator's [`config::Config`] they become a [`plan::Plan`]; a [`source::Source`] asks the providers and yields
//! generations; [`deliver`] renders a generation and writes the volume.

pub mod agent;
pub mod annotations;
pub mod audit;
pub mod bounded_read;
pub mod bundle;
pub mod config;
pub mod contract;
pub mod deliver;
pub mod dotenv;
pub mod env_vars;
pub mod exec;
pub mod generation;
pub mod metrics;
pub mod options;
pub mod parse_error;
pub mod plan;
pub mod process;
pub mod provider;
pub mod quantity;
pub mod reference;
pub mod report;
pub mod secret;
pub mod sentence;
pub mod source;
pub mod steps;

#[cfg(feature = "csi")]
pub mod cluster;
#[cfg(feature = "csi")]
pub mod csi;
#[cfg(feature = "csi")]
pub mod serve;

#[cfg(feature = "cluster")]
pub mod cli;
#[cfg(feature = "cluster")]
pub mod demo;
#[cfg(feature = "cluster")]
pub mod explain;
#[cfg(feature = "cluster")]
pub mod fleet;
#[cfg(feature = "cluster")]
pub mod local;
#[cfg(feature = "cluster")]
pub mod webhook;
