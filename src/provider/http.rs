//! The one HTTP client of all providers: HTTP/1.1 over rustls, bounded in time and size, and silent about what it
//! carries.
//!
//! What goes out and what comes in are secrets. So bodies and secret headers are wiped after use, and a failure is told
//! in our own words with the address of the store, never with what the store wrote.

mod address;
mod authorities;
mod client;
mod connect;
pub mod date;
mod failure;
mod meter;
mod pool;
mod proxy;
mod reach;

pub use address::{Address, check_address, check_endpoint};
pub use authorities::{Authorities, CaFile, check_ca};
pub(crate) use client::to_json;
pub use client::{
    Call, Client, Limits, Opened, Response, SendError, Stream, bearer, contains_ignore_case, frame, secret_header,
};
pub use failure::{Failure, Scope};
pub use meter::{StoreCall, StoreMeter, calling};
pub use proxy::Proxy;
pub use reach::Reach;
