//! Who waits for more than two seconds is told for what.

use super::{Context, Failure, Printable, tell};
use crate::door;
use crate::oauth::words::one_line;

impl Context<'_> {
    /// Runs a future as `block_on` does, and after two seconds says on stderr what is waited for.
    pub(super) fn block_on_telling<T>(
        &self,
        what: &dyn Fn() -> String,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.block_on(async {
            let mut work = std::pin::pin!(work);
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(door::NOTICE) => self.tell_waiting(&what()),
            }
            work.await
        })
    }

    pub(super) fn tell_waiting(&self, what: &str) {
        let note = format!("safeconduct: waiting: {}\n", one_line(what));
        tell(&Printable::text(&note, self.env));
    }
}
