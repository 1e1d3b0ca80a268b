//! Wall times as text (RFC 3339), in UTC.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// With whole seconds. What is before 1970 counts as 1970.
pub(crate) fn rfc3339(wall: SystemTime) -> String {
    written(wall, |_| String::new())
}

/// With milliseconds, for records.
pub(crate) fn rfc3339_millis(wall: SystemTime) -> String {
    written(wall, |since| format!(".{:03}", since.subsec_millis()))
}

fn written(wall: SystemTime, fraction: fn(Duration) -> String) -> String {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(seconds) else { return "unknown".to_owned() };
    let (hour, minute, second) = moment.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}{}Z", moment.date(), fraction(since))
}

/// The time that another party wrote, in any time zone.
pub(crate) fn from_rfc3339(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_and_read_in_any_zone() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(rfc3339(at(1_790_000_000_999)), "2026-09-21T14:13:20Z");
        assert_eq!(rfc3339_millis(at(1_790_000_000_007)), "2026-09-21T14:13:20.007Z");
        assert_eq!(rfc3339_millis(at(951_782_400_000)), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(u64::MAX)), "unknown");
        for (text, millis) in [
            ("2026-09-21T14:13:20Z", 1_790_000_000_000),
            ("2026-09-21T14:13:20.007Z", 1_790_000_000_007),
            ("2026-09-21T14:13:20.007123456Z", 1_790_000_000_007),
            ("2026-09-21T16:13:20+02:00", 1_790_000_000_000),
        ] {
            let read = from_rfc3339(text).expect("a time").duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            assert_eq!(read.as_millis(), millis, "{text}");
        }
        for text in ["", "1790000000", "2026-09-21", "2026-09-21T14:13:20", "2026-02-30T00:00:00Z"] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }
}
