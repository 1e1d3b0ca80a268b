//! How the connections of a listener are served: where requests begin and end, how many connections there may be, how long
//! one may be quiet, and how they end. What is answered comes from outside ([`Service`]).
//!
//! It is a package of its own for speed. The HTTP library's generic code is compiled where it is used, at the level of that
//! package: the program is compiled for size, this for speed. So nothing here is generic over the stream or the service.
//! It does no authentication, reads no configuration and decides no answer.

mod accept;
mod activity;
mod answer;
mod begin;
mod body;
mod framing;
#[cfg(any(test, safeconduct_fuzz))]
pub mod fuzzed;
mod inbound;
mod limits;
mod seats;
mod seldom;
mod serve;
mod watched;

pub use accept::accept_all;
pub use answer::answer;
pub use begin::{Begun, beginning};
pub use body::Body;
pub use framing::Violation;
pub use limits::{Limits, Stream};
pub use seats::{Owner, Places, Seat, Seats};
pub use serve::{Reply, Service, connection};
