//! ○ What somebody may have meant.

/// Names that are near to what was typed: the nearest first, at most three.
///
/// ```
/// # use noports::cli::near::nearest;
/// assert_eq!(nearest("devcie", ["device", "devices", "via"]), ["device"]);
/// ```
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let typed = typed.to_lowercase();
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .map(|name| (steps(&name.to_lowercase(), &typed), name))
        .filter(|(steps, name)| is_near(*steps, name, &typed) && !are_opposites(name, &typed))
        .collect();
    near.sort();
    near.dedup();
    let least = near.first().map_or(0, |row| row.0);
    let close = near.into_iter().filter(|row| row.0 == least);
    close.map(|(_, name)| name).take(MOST).collect()
}

/// Words for the same thing in many programs; the first is what a group is called.
const ALIKE: &[&[&str]] = &[
    &["list", "ls", "show", "status"],
    &["serve", "start", "run", "up"],
    &["remove", "rm", "delete", "del"],
    &["end", "kill", "stop", "close"],
    &["add", "create", "new"],
    &["otp", "opt", "code", "passcode"],
    &["request", "enrol", "enroll", "ask"],
    &["check", "test", "verify"],
];

/// The group of words that mean the same.
pub fn alike(typed: &str) -> &'static [&'static str] {
    let typed = typed.to_lowercase();
    let group = ALIKE.iter().find(|group| group.contains(&&*typed));
    group.copied().unwrap_or_default()
}

/// The name that is meant: another word for the same, else the nearest.
pub fn meant<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let names: Vec<&str> = names.into_iter().collect();
    let same = names.iter().find(|name| alike(typed).contains(name));
    let same = same.copied();
    same.or_else(|| nearest(typed, names).first().copied())
}

/// Most names that are offered.
const MOST: usize = 3;
/// Longest word that is compared, in characters.
const LONGEST: usize = 40;

/// One slip in a short word, two in a longer one, three in a long one; or the beginning of a name.
fn is_near(steps: usize, name: &str, typed: &str) -> bool {
    let allowed = match typed.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    steps <= allowed || (typed.len() >= 3 && name.starts_with(typed))
}

/// Whoever wants to install something is not to be told how to uninstall it.
fn are_opposites(one: &str, other: &str) -> bool {
    let is_not = |a: &str, b: &str| matches!(a.strip_suffix(b), Some("un" | "no-" | "no"));
    is_not(one, other) || is_not(other, one)
}

/// How many letters have to be changed, added, left out or swapped with their neighbour.
pub fn steps(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.chars().take(LONGEST).collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(a[i - 1] != b[j - 1]);
                let least = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + change);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least.min(rows[i - 2][j - 2] + 1)
                } else {
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let names = [
            "daemon",
            "demo",
            "devices",
            "client",
            "rendezvous",
            "policy",
        ];
        for (typed, want) in [
            ("deamon", &["daemon"][..]),
            ("Devices", &["devices"]),
            ("device", &["devices"]),
            ("clinet", &["client"]),
            ("rendevous", &["rendezvous"]),
            ("cli", &["client"]),
            ("frobnicate", &[]),
            ("x", &[]),
            ("", &[]),
        ] {
            assert_eq!(nearest(typed, names), want, "{typed}");
        }
    }

    /// `service install` was answered with `service uninstall`.
    #[test]
    fn nobody_is_told_the_opposite() {
        for (typed, name) in [
            ("install", "uninstall"),
            ("unlock", "lock"),
            ("encrypt", "no-encrypt"),
        ] {
            assert!(nearest(typed, [name]).is_empty(), "{typed}");
        }
        assert_eq!(nearest("instal", ["uninstall", "install"]), ["install"]);
    }
}
