//! Reads `/proc/PID/cgroup`: the unit that a rule may name, and a hint for people.
//!
//! The unit is the one that systemd itself reports (`sd_pid_get_unit(3)`, src/basic/cgroup-util.c): the first component of the
//! path after the slices. The outermost one counts, because a unit with `Delegate=` makes and names the groups below its own.
//! Below `user@UID.service` that user makes and names them. There the first component after the user's slices is a unit too,
//! which is reported together with its user.

use super::facts::{Unit, UserUnit};
use super::unit_name::UnitName;

/// The unit of a process. `None` in the root group, outside of our own cgroup namespace, and without systemd.
pub(crate) fn unit(text: &str) -> Option<Unit> {
    // The unified hierarchy has the number 0 and no name. Beside older hierarchies its path is often `/`; then systemd has a
    // hierarchy of its own.
    let unified = hierarchies(text).find(|one| one.number == "0" && one.name.is_empty()).filter(|one| one.path != "/");
    of_path(unified.or_else(|| hierarchies(text).find(|one| one.name == "name=systemd"))?.path)
}

/// A line: `NUMBER:NAME:PATH` (cgroups(7)).
struct Hierarchy<'a> {
    number: &'a str,
    name: &'a str,
    path: &'a str,
}

/// The hierarchies of a process. Only the first two colons count: a path may contain any text, and whoever may make groups in
/// one hierarchy chooses it.
fn hierarchies(text: &str) -> impl Iterator<Item = Hierarchy<'_>> {
    text.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (name, path) = rest.split_once(':')?;
        Some(Hierarchy { number, name, path })
    })
}

fn of_path(path: &str) -> Option<Unit> {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).skip_while(|part| is_slice(part));
    let system = unit_name(parts.next()?)?;
    let user = manager_of(&system).and_then(|uid| {
        let name = unit_name(parts.find(|part| !is_slice(part))?)?;
        Some(UserUnit { uid, name })
    });
    Some(Unit { system, user })
}

fn is_slice(part: &str) -> bool {
    part.ends_with(".slice")
}

/// systemd puts `_` before names that the kernel uses.
fn unit_name(part: &str) -> Option<UnitName> {
    UnitName::parse(part.strip_prefix('_').unwrap_or(part))
}

fn manager_of(system: &UnitName) -> Option<u32> {
    system.as_str().strip_prefix("user@")?.strip_suffix(".service")?.parse().ok()
}

/// The container, else the unit, to show to people.
pub(super) fn hint(text: &str) -> Option<String> {
    container(text).map(str::to_owned).or_else(|| {
        let unit = unit(text)?;
        Some(unit.user.map_or(unit.system, |user| user.name).to_string())
    })
}

/// The 64 hexadecimal digits by which Docker, containerd, CRI-O and Podman name a container's group.
fn container(text: &str) -> Option<&str> {
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.lines().flat_map(|line| line.rsplit(['/', '-', ':', '.'])).find(is_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<(String, Option<(u32, String)>)> {
        unit(text).map(|unit| (unit.system.to_string(), unit.user.map(|user| (user.uid, user.name.to_string()))))
    }

    fn system(name: &str) -> Option<(String, Option<(u32, String)>)> {
        Some((name.to_owned(), None))
    }

    #[test]
    fn the_unit_is_the_first_component_after_the_slices() {
        assert_eq!(named("0::/system.slice/agent.service\n"), system("agent.service"));
        assert_eq!(named("0::/system.slice/system-agent.slice/agent@7.service\n"), system("agent@7.service"));
        assert_eq!(named("0::/init.scope\n"), system("init.scope"));
        assert_eq!(named("0::/user.slice/user-1000.slice/session-3.scope\n"), system("session-3.scope"));
        assert_eq!(named("0::/system.slice/_cpu.service\n"), system("cpu.service"));
    }

    #[test]
    fn a_unit_with_delegation_cannot_call_itself_another() {
        assert_eq!(named("0::/system.slice/evil.service/agent.service\n"), system("evil.service"));
        assert_eq!(named("0::/system.slice/evil.service/system.slice/agent.service\n"), system("evil.service"));
        assert_eq!(named("0::/docker/agent.service\n"), None);
    }

    #[test]
    fn a_users_unit_is_kept_apart_with_its_user() {
        let manager = "user@1000.service".to_owned();
        let of_user = |name: &str| Some((manager.clone(), Some((1000, name.to_owned()))));
        let below = "0::/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(named(&format!("{below}/app.slice/agent.service\n")), of_user("agent.service"));
        assert_eq!(named(&format!("{below}/app.slice/app-x.slice/agent@1.service/sub\n")), of_user("agent@1.service"));
        assert_eq!(named(&format!("{below}/init.scope\n")), of_user("init.scope"));
        assert_eq!(named(&format!("{below}\n")), system("user@1000.service"));
    }

    #[test]
    fn systemds_own_hierarchy_counts_where_the_unified_one_is_at_its_root() {
        let hybrid = "9:name=systemd:/system.slice/agent.service\n8:pids:/x.service\n0::/\n";
        assert_eq!(named(hybrid), system("agent.service"));
        assert_eq!(named("9:name=systemd:/system.slice/agent.service\n"), system("agent.service"));
        assert_eq!(named("9:name=systemd:/a.service\n0::/system.slice/b.service\n"), system("b.service"));
    }

    #[test]
    fn a_group_of_another_hierarchy_cannot_call_itself_a_unit() {
        let own = "1:name=systemd:/system.slice/own.service\n0::/\n";
        for name in [
            "/x:name=systemd:/system.slice/agent.service",
            "/:name=systemd:/system.slice/agent.service",
            "/0::/system.slice/agent.service",
            ":name=systemd:/system.slice/agent.service",
        ] {
            assert_eq!(named(&format!("9:pids:{name}\n{own}")), system("own.service"), "{name}");
            assert_eq!(named(&format!("9:pids:{name}\n0::/\n")), None, "{name}");
            assert_eq!(named(&format!("9:name=other:{name}\n0::/\n")), None, "{name}");
        }
        assert_eq!(named("10::/system.slice/agent.service\n"), None, "the unified hierarchy has the number 0");
        assert_eq!(named("0::/system.slice/a:b.service\n"), system("a:b.service"));
    }

    #[test]
    fn what_is_no_unit_is_none() {
        for text in [
            "",
            "0::/\n",
            "0::/../../system.slice/agent.service\n",
            "0::/system.slice/agent.service (deleted)\n",
            "0::/system.slice\n",
            "0::/system.slice/.service\n",
            "0::/system.slice/a b.service\n",
            "8:pids:/system.slice/agent.service\n",
            "1:name=other:/agent.service\n",
        ] {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn a_hint_names_the_container_or_the_unit() {
        let id = "ab".repeat(32);
        for text in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-{id}.scope\n"),
            format!("4:memory:/docker/{id}\n0::/\n"),
        ] {
            assert_eq!(hint(&text).as_deref(), Some(&*id));
        }
        assert_eq!(hint("0::/system.slice/agent.service\n").as_deref(), Some("agent.service"));
        let user = "0::/user.slice/user-1.slice/user@1.service/app.slice/x.service\n";
        assert_eq!(hint(user).as_deref(), Some("x.service"));
        assert_eq!(hint("0::/\n"), None);
    }
}
