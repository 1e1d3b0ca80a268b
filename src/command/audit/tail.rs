//! `safeconduct audit tail`: shows the last lines in readable form and, on request, follows new ones, also after a rotation.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::super::{Context, Failure, Printable, print};
use crate::audit::LINE_CAP;
use crate::cli::AuditTail;
use crate::oauth::quoted_words;

/// How often a followed file is read.
const LOOK: Duration = Duration::from_millis(200);
/// How much of a file is read to show its end.
const TAIL_CAP: u64 = 16 * 1024 * 1024;
const CHUNK: u64 = 64 * 1024;

pub(super) fn run(context: &Context<'_>, verb: &AuditTail) -> Result<(), Failure> {
    let path = match &verb.file {
        Some(file) => file.clone(),
        None => super::file(context)?,
    };
    let mut shown = Shown { context, raw: verb.json, rest: Vec::new() };
    let mut file = super::open(&path)?;
    let failed = |error| super::unread(&path, &error);
    let mut end = last(&mut file, verb.lines).map_err(failed)?;
    shown.take(&mut end)?;
    if !verb.follow {
        return shown.finish();
    }
    loop {
        std::thread::sleep(LOOK);
        follow(&path, &mut file, &mut shown)?;
    }
}

/// The last `lines` lines, as far as [`TAIL_CAP`] reaches; the position is at the end then.
fn last(file: &mut File, lines: usize) -> std::io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    let breaks = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
    // Each part of the end is read once, the last one first.
    let (mut from, mut whole, mut chunks) = (length, 0, Vec::new());
    while from > 0 && whole <= lines && length - from < TAIL_CAP {
        let size = from.min(CHUNK);
        from -= size;
        let mut chunk = vec![0; usize::try_from(size).unwrap_or(0)];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut chunk)?;
        whole += breaks(&chunk);
        chunks.push(chunk);
    }
    file.seek(SeekFrom::Start(length))?;
    chunks.reverse();
    let mut end = chunks.concat();
    let skip = whole.saturating_sub(lines) + usize::from(from > 0 && whole < lines);
    let start = end.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).take(skip).last();
    Ok(end.split_off(start.unwrap_or(0)))
}

/// Shows new lines. A truncated file is read from its beginning; a renamed file is read to its end, then the new file.
fn follow(path: &Path, file: &mut File, shown: &mut Shown<'_>) -> Result<(), Failure> {
    let failed = |error| super::unread(path, &error);
    let renamed = fs::metadata(path).ok().filter(|now| file.metadata().is_ok_and(|ours| which(now) != which(&ours)));
    if file.metadata().map_err(failed)?.len() < file.stream_position().map_err(failed)? {
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
    }
    skip(file).map_err(failed)?;
    shown.rest_of(file).map_err(failed)??;
    // The old file is read to its end by now, unless the writer still writes to it.
    if renamed.is_some_and(|now| now.len() > 0) {
        *file = super::open(path)?;
        skip(file).map_err(failed)?;
        shown.rest_of(file).map_err(failed)??;
    }
    Ok(())
}

/// Leaves out what no reader can take: of new bytes at most [`TAIL_CAP`] are shown.
fn skip(file: &mut File) -> std::io::Result<()> {
    let (at, length) = (file.stream_position()?, file.metadata()?.len());
    if length.saturating_sub(at) > TAIL_CAP {
        file.seek(SeekFrom::Start(length - TAIL_CAP))?;
    }
    Ok(())
}

fn which(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

struct Shown<'a> {
    context: &'a Context<'a>,
    raw: bool,
    /// The beginning of an incomplete line.
    rest: Vec<u8>,
}

impl Shown<'_> {
    fn rest_of(&mut self, file: &mut File) -> std::io::Result<Result<(), Failure>> {
        loop {
            let mut more = Vec::new();
            file.take(CHUNK).read_to_end(&mut more)?;
            if more.is_empty() {
                return Ok(Ok(()));
            }
            if let Err(failure) = self.take(&mut more) {
                return Ok(Err(failure));
            }
        }
    }

    fn take(&mut self, more: &mut Vec<u8>) -> Result<(), Failure> {
        self.rest.append(more);
        let whole = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let after = self.rest.split_off(whole);
        let lines = std::mem::replace(&mut self.rest, after);
        if self.rest.len() > LINE_CAP {
            self.finish()?;
        }
        let lines = lines.split_inclusive(|&byte| byte == b'\n').map(|line| self.line(line));
        lines.reduce(|text, line| text.then(&line)).map_or(Ok(()), |text| print(&text))
    }

    /// Shows the last line, which has no line feed.
    fn finish(&mut self) -> Result<(), Failure> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() { Ok(()) } else { print(&self.line(&rest)) }
    }

    fn line(&self, line: &[u8]) -> Printable {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned();
        if self.raw {
            return Printable::json(&format!("{text}\n"), self.context.env);
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(line) if line.is_object() => Printable::text(&format!("{}\n", for_people(&line)), self.context.env),
            _ => Printable::own(format!("({} bytes that are no line)\n", line.len())),
        }
    }
}

/// Time, outcome, who, what, for which server, as whom.
fn for_people(line: &Value) -> String {
    let text = |value: &Value| value.as_str().map(quoted_words);
    let caller = &line["caller"];
    let mut words = vec![text(&line["time"]).unwrap_or_else(|| "no time".to_owned())];
    match text(&line["outcome"]) {
        Some(outcome) => words.push(format!("{outcome:7}")),
        None => return format!("{}  {}", words[0], text(&line["action"]).unwrap_or_default()),
    }
    words.extend(text(&line["action"]));
    if let Some(uid) = caller["uid"].as_u64() {
        words.push(format!("uid {uid}"));
    }
    words.extend(text(&caller["exe"]).or_else(|| text(&caller["unit"])));
    words.extend(text(&line["server"]));
    words.extend(text(&line["tool"]).map(|tool| format!("tool {tool}")));
    words.extend(text(&line["scopes"]).map(|scopes| format!("[{scopes}]")));
    let hops = line["identity"].as_array().into_iter().flatten();
    words.extend(hops.filter_map(|hop| text(&hop["sub"])).map(|sub| format!("as {sub}")));
    words.extend(text(&line["class"]).zip(text(&line["error"])).map(|(class, error)| format!("{class}: {error}")));
    words.extend(line["more"].as_u64().map(|more| format!("{more} times")));
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let mut file = tempfile::tempfile().expect("a file");
        let long = "x".repeat(50_000);
        write!(file, "one\n{long}\n{long}\nfour\nfive").expect("written");
        let mut last = |lines| String::from_utf8(last(&mut file, lines).expect("read")).expect("UTF-8");
        assert_eq!(last(0), "five");
        assert_eq!(last(1), "four\nfive");
        assert_eq!(last(2).len(), 50_000 + 1 + 9);
        assert!(last(4).starts_with("one\n"));
        assert!(last(9).starts_with("one\n"));
    }

    #[test]
    fn of_a_huge_file_only_the_end_is_read() {
        let mut file = tempfile::tempfile().expect("a file");
        file.set_len(20 * 1024 * 1024 * 1024).expect("a hole");
        assert_eq!(last(&mut file, 10).expect("read").len() as u64, TAIL_CAP);
        file.seek(SeekFrom::Start(0)).expect("there");
        skip(&mut file).expect("skipped");
        assert_eq!(file.stream_position().expect("known"), 20 * 1024 * 1024 * 1024 - TAIL_CAP);
        writeln!(file, "{{}}").expect("written");
        let before = file.stream_position().expect("known");
        skip(&mut file).expect("nothing to skip");
        assert_eq!(file.stream_position().expect("known"), before);
    }

    #[test]
    fn words_of_others_stay_on_their_line() {
        let line = serde_json::json!({
            "time": "t", "outcome": "refused", "action": "token", "caller": { "uid": 5, "exe": "/a\nb" },
            "server": "x\u{202e}y", "class": "denied", "error": "access_denied",
        });
        assert_eq!(for_people(&line), "t  refused  token  uid 5  /a b  x y  denied: access_denied");
    }

    #[test]
    fn refusals_that_are_counted_in_one_line_show_their_number() {
        let line = serde_json::json!({
            "time": "t", "outcome": "refused", "action": "gate", "caller": { "uid": 5 },
            "class": "denied", "error": "repeated", "more": 95,
        });
        assert_eq!(for_people(&line), "t  refused  gate  uid 5  denied: repeated  95 times");
    }
}
