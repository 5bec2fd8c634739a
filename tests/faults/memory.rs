//! A limit for the memory of some processes together: a control group of its own, of whichever kind this machine has.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Groups of this run.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// It goes when it is dropped and nobody is in it any more.
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// So many bytes.
    ///
    /// # Errors
    /// In a sentence, when this machine cannot do it.
    pub fn of(bytes: u64) -> Result<Self, String> {
        let first = PathBuf::from("/sys/fs/cgroup/memory");
        let (parent, file) = if first.is_dir() {
            (first, "memory.limit_in_bytes")
        } else {
            (PathBuf::from("/sys/fs/cgroup"), "memory.max")
        };
        let number = COUNT.fetch_add(1, Relaxed);
        let folder = parent.join(format!("noports-bench-{}-{number}", process::id()));
        let made = fs::create_dir(&folder);
        let group = Self(folder);
        let limited = made.and_then(|()| fs::write(group.0.join(file), bytes.to_string()));
        match limited {
            Ok(()) => Ok(group),
            Err(why) => Err(format!("this takes control groups for memory: {why}")),
        }
    }

    /// Whoever writes its process number there is in it.
    pub fn members(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// How many of its processes the kernel has ended for want of memory.
    pub fn killed(&self) -> u64 {
        let text = ["memory.oom_control", "memory.events"]
            .map(|name| fs::read_to_string(self.0.join(name)));
        let text: String = text.into_iter().flatten().collect();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.parse().ok())
            .unwrap_or_default()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        crate::world::support::wait_until("nobody is in the group", || {
            fs::remove_dir(&self.0).is_ok()
        });
    }
}
