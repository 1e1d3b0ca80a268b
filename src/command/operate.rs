//! `safeconduct stop` and `safeconduct reload`: what the operator tells a running daemon.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::obtain::{Refused, strange};
use super::{Context, Failure, Printable, print};
use crate::broker::Class;
use crate::cli::Operate;
use crate::door::{self, Place};
use crate::supervisor::process;

/// The daemon answers at once.
const ANSWERS: Duration = Duration::from_secs(10);
/// A reload reads files and roots, and may wait for the one before.
const RELOADS: Duration = Duration::from_secs(30);
/// The daemon drains for at most 5.5 s and revokes for as long, after its `linger`.
const ENDS: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Ends the daemon and waits for its end. In a CI job, where each step has a daemon of its own, it ends all of them, and none that
/// is not of the job. Where the job has none there is nothing to do.
pub(super) fn stop(context: &Context<'_>, verb: &Operate) -> Result<(), Failure> {
    let places = door::places(context.global.socket.as_ref(), context.env);
    let of_steps: Vec<_> = places.iter().filter(|place| place.of_step).map(std::slice::from_ref).collect();
    if of_steps.is_empty() {
        let pid = stop_one(context, &places)?;
        return say(context, verb, &json!({ "stopped": true, "pid": pid }), "stopped");
    }
    let is_there =
        |places: &&[Place]| !matches!(door::connect(places, context.env.uid()), Err(door::Error::Absent { .. }));
    let (mut pids, mut failed) = (Vec::new(), None);
    for place in of_steps.into_iter().filter(is_there) {
        // The others are ended even if one cannot be.
        match stop_one(context, place) {
            Ok(pid) => pids.push(pid),
            Err(failure) => drop(failed.get_or_insert(failure)),
        }
    }
    match (failed, pids.first()) {
        (Some(failure), _) => Err(failure),
        (None, Some(pid)) => say(context, verb, &json!({ "stopped": true, "pid": pid, "pids": pids }), "stopped"),
        (None, None) => {
            let places: Vec<_> = places.into_iter().filter(|place| place.of_step).collect();
            match door::listening(&places, context.env.uid()) {
                Err(absent) if absent.has_passed_over() => Err(absent.into()),
                // The last step of a job, which always runs, has nothing to do if the step before it failed.
                _ => {
                    let none = "no daemon of this job is running, so there is nothing to stop";
                    say(context, verb, &json!({ "stopped": false }), none)
                }
            }
        }
    }
}

/// Ends the first daemon that listens at one of the places, and waits for its end. Returns its process id.
fn stop_one(context: &Context<'_>, places: &[Place]) -> Result<i32, Failure> {
    #[derive(Deserialize)]
    struct Stopping {
        pid: i32,
        linger: u64,
    }
    // Who has made the socket, as this process sees it: another number in a container, or none.
    let pid = door::listener(places, context.env.uid())?;
    let Stopping { pid: own, linger } = read(&door::ask(places, "POST /v1/stop", None, context.env.uid(), ANSWERS)?)?;
    // The service manager can have made the socket. It lives on, and a connection would start the daemon anew.
    let watched = pid.map(|pid| if process::calls_itself(pid, own) { pid } else { own });
    let of_daemon = watched.map(|pid| (pid, process::started(pid)));
    let (clock, limit) = (context.clock(), ENDS + Duration::from_secs(linger));
    let asked = clock.boot();
    let is_over = || match of_daemon {
        Some((_, None)) => true,
        Some((pid, started)) => process::started(pid) != started,
        // It is in another container.
        None => matches!(door::connect(places, context.env.uid()), Err(door::Error::Absent { .. })),
    };
    while !is_over() {
        if clock.boot().since(asked) > limit {
            let message = format!("the daemon (pid {own}) has not ended after {} s", limit.as_secs());
            return Err(Failure::new(Class::Temporary, message).hint("it obeys and drains; look at its log"));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(own)
}

/// Has the daemon read its configuration again, and says how that went.
pub(super) fn reload(context: &Context<'_>, verb: &Operate) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Reloaded {
        servers: usize,
        /// A daemon of an older version says nothing of that.
        #[serde(default)]
        needs_restart: Vec<String>,
    }
    let Reloaded { servers, needs_restart } = read(&context.ask_daemon("POST /v1/reload", None, RELOADS)?)?;
    let noun = if servers == 1 { "server" } else { "servers" };
    let mut text = format!("reloaded: {servers} {noun}");
    for table in &needs_restart {
        text.push_str(&format!("\n[{table}] has changed: that needs a restart, and until then the old one holds"));
    }
    say(context, verb, &json!({ "reloaded": true, "servers": servers, "needs_restart": needs_restart }), &text)
}

fn read<T: for<'de> Deserialize<'de>>(reply: &door::Reply) -> Result<T, Failure> {
    if reply.status != 200 {
        return Err(Refused::read(reply).map_or_else(strange, Refused::into_failure));
    }
    serde_json::from_slice(&reply.body).map_err(|_| strange())
}

fn say(context: &Context<'_>, verb: &Operate, json: &serde_json::Value, text: &str) -> Result<(), Failure> {
    if verb.json {
        return print(&Printable::json(&format!("{json}\n"), context.env));
    }
    print(&Printable::text(&format!("{text}\n"), context.env))
}
