//! How much memory this process and its children may use.

use std::{fs, path::Path};

/// Where nothing says how much there is.
const UNKNOWN: u64 = 1 << 30;
/// Where the limits of groups of processes are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Bytes: what the machine has, or the least that a group which this process is in may have.
pub fn limit() -> u64 {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_limit(&group, Path::new(GROUPS));
    group.map_or_else(machine, |limit| limit.min(machine()))
}

#[cfg(target_os = "linux")]
fn machine() -> u64 {
    let info = rustix::system::sysinfo();
    // A word of the machine: 32 bits on some.
    #[allow(clippy::useless_conversion)]
    let ram = u64::from(info.totalram);
    match ram.saturating_mul(u64::from(info.mem_unit)) {
        0 => UNKNOWN,
        bytes => bytes,
    }
}

#[cfg(not(target_os = "linux"))]
fn machine() -> u64 {
    UNKNOWN
}

/// `own` is `/proc/self/cgroup`: of it the line `0::/the/group`, and that of the older kind, `8:memory:/the/group`.
fn group_limit(own: &str, root: &Path) -> Option<u64> {
    let older = root.join("memory");
    let kinds = [
        ("0::/", root, "memory.max"),
        (":memory:/", &older, "memory.limit_in_bytes"),
    ];
    let limits = kinds.into_iter().filter_map(|(mark, root, file)| {
        let (_, own) = own.lines().find_map(|line| line.split_once(mark))?;
        least(&root.join(own), root, file)
    });
    limits.min()
}

/// Of a group and all around it.
fn least(own: &Path, root: &Path, file: &str) -> Option<u64> {
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    let limit = |group: &Path| {
        fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    groups.filter_map(limit).min()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn the_least_limit_of_all_groups_around_a_process_counts() {
        let folder = Folder::new();
        let inner = folder.path("system.slice/noports.service");
        fs::create_dir_all(&inner).unwrap();
        let own = "1:cpu:/x\n0::/system.slice/noports.service\n";
        assert_eq!(group_limit(own, &folder.0), None);
        for (group, text, want) in [
            ("system.slice/noports.service", "max\n", None),
            ("system.slice", "67108864\n", Some(67_108_864)),
            (
                "system.slice/noports.service",
                "268435456\n",
                Some(67_108_864),
            ),
            ("", "1048576\n", Some(1_048_576)),
        ] {
            fs::write(folder.path(group).join("memory.max"), text).unwrap();
            assert_eq!(group_limit(own, &folder.0), want, "{group} {text}");
        }
        assert_eq!(group_limit("", &folder.0), None);
    }

    /// A daemon in 64 MB started bridges until the kernel ended it.
    #[test]
    fn groups_of_the_older_kind_count_too() {
        let folder = Folder::new();
        fs::create_dir_all(folder.path("memory/device")).unwrap();
        let file = folder.path("memory/device/memory.limit_in_bytes");
        fs::write(file, "67108864\n").unwrap();
        let own = "8:memory:/device/daemon\n1:cpu:/device\n0::/\n";
        assert_eq!(group_limit(own, &folder.0), Some(64 << 20));
        assert_eq!(group_limit("1:cpu:/device\n0::/\n", &folder.0), None);
    }

    #[test]
    fn a_machine_has_some() {
        assert!(limit() > 1 << 20);
    }
}
