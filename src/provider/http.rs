//! The one HTTP client of all providers: HTTP/1.1 over rustls, bounded in time and size, and silent about what it
//! carries.
//!
//! What goes out and what comes in are secrets. So bodies and secret headers are wiped after use, and a failure is told
//! in our own words with the address of the store, never with what the store wrote.

mod address;
mod authorities;
mod call;
mod client;
mod connect;
pub mod date;
mod failure;
mod meter;
mod pool;
mod proxy;
mod reach;
mod response;

pub use address::{Address, check_address, check_endpoint};
pub use authorities::{Authorities, CaFile, check_ca};
pub(crate) use call::to_json;
pub use call::{Call, bearer, secret_header};
pub use client::{Client, Limits, Opened, SendError, Stream};
pub use failure::{Failure, Scope};
pub use meter::{StoreCall, StoreMeter, calling};
pub use proxy::Proxy;
pub use reach::Reach;
pub use response::{Response, contains_ignore_case, frame};
