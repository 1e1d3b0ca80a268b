//! The broker as a whole, on the virtual clock.

use super::*;

mod two_callers;
