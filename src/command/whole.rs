//! Writes all bytes to a stream that may be non-blocking.

use std::time::Duration;

/// How long a reader of our output may read nothing.
pub(super) const READER_LIMIT: Duration = Duration::from_secs(30);

/// Writes all bytes, also to a pipe that its other owner has made non-blocking: there a write takes what fits, and we wait
/// until more does.
pub(super) fn write_whole(to: impl std::os::fd::AsFd, mut bytes: &[u8], limit: Duration) -> std::io::Result<()> {
    use nix::errno::Errno;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    while !bytes.is_empty() {
        match nix::unistd::write(&to, bytes) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
                match poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], limit) {
                    Ok(0) => return Err(std::io::ErrorKind::TimedOut.into()),
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_non_blocking_pipe_gets_the_whole_output() {
        use std::io::Read;
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).expect("set");
        let text: Vec<u8> = (0..1_000_000).map(|at| b'a' + (at % 26) as u8).collect();
        let whole = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        write_whole(&writer, &text, Duration::from_secs(30)).expect("it is read");
        drop(writer);
        assert!(whole.join().expect("no panic").expect("read") == text, "something is missing");
    }

    #[test]
    fn a_reader_that_reads_nothing_is_not_waited_for_without_end() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).expect("set");
        let stuck = write_whole(&writer, &[0; 1_000_000], Duration::from_millis(20)).expect_err("nobody reads");
        assert_eq!(stuck.kind(), std::io::ErrorKind::TimedOut);
        drop(reader);
        let gone = write_whole(&writer, b"x", Duration::from_millis(20)).expect_err("nobody is there");
        assert_eq!(gone.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
