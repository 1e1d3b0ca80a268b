//! Dialling a host that has several addresses ("happy eyeballs", RFC 8305).
//!
//! The families take turns, beginning with the one that the system puts first. An attempt begins 250 ms after the one before
//! it, or at once if that one failed, and does not end it: the first connection wins. So an address that never answers costs
//! a quarter of a second and not the whole limit.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// RFC 8305 section 8: "Connection Attempt Delay".
const STAGGER: Duration = Duration::from_millis(250);
/// No more addresses of one name are tried: within the connect limit nobody gets further, and the name's owner decides how
/// many there are.
const ADDRESSES: usize = 20;

/// The first connection that one of these addresses gives, or the last error.
pub(super) async fn first<T, F>(addresses: &[SocketAddr], dial: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let in_turn = in_turn(addresses);
    let mut waiting = in_turn.into_iter().take(ADDRESSES).peekable();
    let mut dialled = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        dialled.extend(waiting.next().map(&dial));
        let more = waiting.peek().is_some();
        let stagger = async { if more { tokio::time::sleep(STAGGER).await } else { pending().await } };
        tokio::select! {
            biased;
            outcome = dialled.next() => match outcome {
                Some(Ok(connection)) => return Ok(connection),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = stagger => {}
        }
    }
}

/// One of each family in turn, for as long as there are both (RFC 8305 section 4).
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(|address| address.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::with_capacity(addresses.len());
    while one.len() + other.len() > 0 {
        all.extend(one.next());
        all.extend(other.next());
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|one| SocketAddr::new(one.parse().expect("an address"), 443)).collect()
    }

    /// A dialler that knows what each address does, and writes down when it was asked for it.
    #[derive(Default)]
    struct Script {
        /// Answers after so many milliseconds.
        answers: Vec<(SocketAddr, u64)>,
        /// Refuses after so many milliseconds. Every other address is silent.
        refuses: Vec<(SocketAddr, u64)>,
        dialled: Mutex<Vec<(SocketAddr, u128)>>,
    }

    impl Script {
        async fn run(&self, addresses: &[SocketAddr]) -> io::Result<SocketAddr> {
            let began = Instant::now();
            first(addresses, |address| async move {
                self.dialled.lock().expect("no panic").push((address, began.elapsed().as_millis()));
                let after = |list: &[(SocketAddr, u64)]| list.iter().find(|(of, _)| *of == address).map(|(_, ms)| *ms);
                match (after(&self.answers), after(&self.refuses)) {
                    (Some(ms), _) => {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                        Ok(address)
                    }
                    (_, Some(ms)) => {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                    _ => pending().await,
                }
            })
            .await
        }

        fn times(self) -> Vec<u128> {
            self.dialled.into_inner().expect("no panic").into_iter().map(|(_, at)| at).collect()
        }
    }

    #[test]
    fn the_families_take_turns_beginning_with_the_systems_first() {
        let order = |text: &str| in_turn(&addresses(text)).iter().map(|one| one.ip().to_string()).collect::<Vec<_>>();
        assert_eq!(order("::1 ::2 ::3 10.0.0.1 10.0.0.2"), ["::1", "10.0.0.1", "::2", "10.0.0.2", "::3"]);
        assert_eq!(order("10.0.0.1 10.0.0.2 ::1"), ["10.0.0.1", "::1", "10.0.0.2"]);
        assert_eq!(order("10.0.0.1 10.0.0.2"), ["10.0.0.1", "10.0.0.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_a_quarter_of_a_second_whatever_its_family() {
        for text in ["2001:db8::1 192.0.2.1", "192.0.2.1 192.0.2.2", "2001:db8::1 2001:db8::2"] {
            let two = addresses(text);
            let script = Script { answers: vec![(two[1], 10)], ..Script::default() };
            let began = Instant::now();
            assert_eq!(script.run(&two).await.expect("the second answers"), two[1]);
            assert_eq!(began.elapsed().as_millis(), 260, "{text}");
            assert_eq!(script.times(), [0, 250]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_wins_even_of_one_that_was_dialled_before() {
        let three = addresses("192.0.2.1 192.0.2.2 192.0.2.3");
        let script = Script { answers: vec![(three[0], 300), (three[1], 100)], ..Script::default() };
        assert_eq!(script.run(&three).await.expect("both answer"), three[0]);
        assert_eq!(script.times(), [0, 250], "the third was not needed");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_the_next_is_dialled_at_once_and_the_last_error_is_told() {
        let three = addresses("192.0.2.1 192.0.2.2 192.0.2.3");
        let script = Script { refuses: three.iter().map(|&one| (one, 20)).collect(), ..Script::default() };
        let error = script.run(&three).await.expect_err("all refuse");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(script.times(), [0, 20, 40]);
        let error = Script::default().run(&[]).await.expect_err("nobody to dial");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_with_a_thousand_addresses_does_not_cost_a_thousand_attempts() {
        let many: Vec<_> = (0..1_000).map(|port| SocketAddr::new([192, 0, 2, 1].into(), port)).collect();
        let script = Script { refuses: many.iter().map(|&one| (one, 0)).collect(), ..Script::default() };
        script.run(&many).await.expect_err("all refuse");
        assert_eq!(script.times().len(), ADDRESSES);
    }
}
