//! seccomp: system calls that no program of ours, and nothing that it starts, has a use for; each fails with EPERM.
//!
//! A list of what is forbidden, not of what is allowed: the next C library or kernel may need a call that nobody here has
//! heard of, and a device must not fall silent for that. A program for another kind of processor (32-bit x86 on `x86_64`)
//! is ended by the kernel.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use known::confine;

/// There is no filter for this kind of machine.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn confine(_local_sockets: bool) -> Result<(), String> {
    Err(format!(
        "no filter of system calls for {}",
        std::env::consts::ARCH
    ))
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod known {
    use std::collections::BTreeMap;

    use libc::c_long;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch, apply_filter,
    };

    #[cfg(target_arch = "x86_64")]
    const MACHINE: TargetArch = TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    const MACHINE: TargetArch = TargetArch::aarch64;

    /// Whatever the arguments.
    const FORBIDDEN: &[&[c_long]] = &[
        // Other processes' memory and descriptors.
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
        ],
        // The tree of files, and ways around it.
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_open_by_handle_at,
            libc::SYS_fanotify_init,
            libc::SYS_quotactl,
        ],
        // Namespaces; clone is below.
        &[libc::SYS_unshare, libc::SYS_setns],
        // The kernel itself.
        &[
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_personality,
            libc::SYS_syslog,
            libc::SYS_nfsservctl,
        ],
        // Keys that the person's programs keep in it.
        &[libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key],
        // The machine: power, swap, clock, name.
        &[
            libc::SYS_reboot,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_adjtimex,
            libc::SYS_clock_adjtime,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_vhangup,
        ],
        #[cfg(target_arch = "x86_64")]
        &[
            libc::SYS_kexec_file_load,
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_modify_ldt,
        ],
    ];
    /// Kinds of namespaces that clone could make.
    const NAMESPACES: [i32; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    /// Sockets: IPv4 and IPv6, and what the resolver and `sys::sockets` ask the kernel by.
    const SOCKETS: [i32; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

    type Rules = BTreeMap<i64, Vec<SeccompRule>>;

    /// Filters this thread; whether it may still open sockets to local programs. Pairs of sockets lead nowhere else.
    pub(in crate::sys::sandbox) fn confine(local_sockets: bool) -> Result<(), String> {
        let told = |error: seccompiler::Error| error.to_string();
        let filters = || {
            // What clone3 is asked for stands in memory, where no filter can look. Without it everybody uses clone.
            let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
            Ok([
                filter(unknown, libc::ENOSYS)?,
                filter(forbidden(local_sockets)?, libc::EPERM)?,
            ])
        };
        let filters = filters().map_err(|error: seccompiler::BackendError| error.to_string())?;
        filters
            .iter()
            .try_for_each(|filter| apply_filter(filter))
            .map_err(told)
    }

    fn filter(rules: Rules, errno: i32) -> Result<BpfProgram, seccompiler::BackendError> {
        let refuse = SeccompAction::Errno(errno.unsigned_abs());
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, MACHINE)?.try_into()
    }

    fn forbidden(local_sockets: bool) -> Result<Rules, seccompiler::BackendError> {
        let mut rules: Rules = FORBIDDEN
            .concat()
            .into_iter()
            .map(|call| (call, Vec::new()))
            .collect();
        let first = |op, value: i32| {
            let value = u64::from(value.unsigned_abs());
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, value)
        };
        let namespaces = NAMESPACES.iter().map(|kind| {
            let mask = u64::from(kind.unsigned_abs());
            SeccompRule::new(vec![first(SeccompCmpOp::MaskedEq(mask), *kind)?])
        });
        rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
        let local = local_sockets.then_some(libc::AF_UNIX);
        let kinds = SOCKETS.into_iter().chain(local);
        let others = kinds.map(|kind| first(SeccompCmpOp::Ne, kind));
        let others = SeccompRule::new(others.collect::<Result<_, _>>()?)?;
        rules.insert(libc::SYS_socket, vec![others]);
        Ok(rules)
    }
}
