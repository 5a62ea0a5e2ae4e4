//! The driver on a node without a kernel and a store without a network: what tests put in their place is in [`node`].

mod audit;
mod calls;
mod canaries;
mod controls;
mod deny;
mod kill;
mod node;
mod publish;
mod restart;
mod share;
pub(super) mod steps;
mod waiting;
