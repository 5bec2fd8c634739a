//! Who we are on this machine.

use std::{env, fs};

/// The name of the user we run as: by the system's list of users, else by `$USER`.
pub fn name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    let list = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&list, uid)
        .or_else(|| env::var("USER").ok())
        .filter(|name| !name.is_empty())
}

fn name_in(list: &str, uid: u32) -> Option<String> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_users_is_read_by_number() {
        let list =
            "root:x:0:0:root:/root:/bin/sh\nbroken\n\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n";
        for (uid, want) in [(0, Some("root")), (1000, Some("pi")), (1, None)] {
            assert_eq!(name_in(list, uid).as_deref(), want, "{uid}");
        }
    }
}
