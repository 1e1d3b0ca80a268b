//! Divides the file descriptors of this process: callers get most of them, and a reserve is left for what a daemon does by
//! itself (renewals, name lookups, identity programs, files), however many callers come and say nothing.

use safeconduct_listener::Places;

/// The least reserve: two renewals at once with name lookups, and an identity program.
const RESERVE: usize = 16;

/// The part of the wanted descriptors that callers may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    free: usize,
    wanted: usize,
}

impl Share {
    /// For listeners that want so many in all, where so many are left to this process.
    pub(crate) fn new(left: usize, wanted: usize) -> Self {
        // Each renewal has connections of its own. Where there are many servers, the limit is higher.
        let reserve = RESERVE.max(left / 8);
        Self { free: left.saturating_sub(reserve), wanted: wanted.max(1) }
    }

    /// The places of a listener whose connections take `each` descriptors.
    pub(super) fn places(self, wish: Places, each: usize) -> Places {
        let wanted = wish.descriptors(each);
        wish.within(if self.free >= self.wanted { wanted } else { wanted * self.free / self.wanted }, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: Places = Places { all: 2_048, user: 512, strangers: 0 };
    const HEALTH: Places = Places { all: 64, user: 64, strangers: 64 };

    #[test]
    fn callers_never_get_the_reserve_and_each_listener_keeps_a_part() {
        let wanted = SOCKET.descriptors(2) + HEALTH.descriptors(1);
        for left in [32, 64, 256, 1_024, 4_096, 8_192, 100_000] {
            let share = Share::new(left, wanted);
            let (socket, health) = (share.places(SOCKET, 2), share.places(HEALTH, 1));
            assert!(2 * socket.all + health.all + RESERVE <= left + 1, "{left}: {socket:?} {health:?}");
            assert!(socket.all > 0 && health.all > 0);
        }
        assert_eq!(Share::new(8_192, wanted).places(SOCKET, 2).all, 2_048);
    }
}
