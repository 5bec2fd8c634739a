//! Figures that the bench writes down itself: rows of a table in a Markdown file, each in place of the one that a former run
//! wrote there.

use std::{fs, io, path::Path};

/// A table, found in its file by its header.
pub struct Table {
    pub header: &'static str,
    /// So many first cells say whose figures a row's are.
    pub keys: usize,
}

impl Table {
    /// Writes a row into it. `place`: where a row stands among others.
    ///
    /// # Errors
    /// The file's.
    pub fn write(
        &self,
        file: &Path,
        row: &str,
        place: impl Fn(&[&str]) -> usize,
    ) -> io::Result<()> {
        let text = match fs::read_to_string(file) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        }?;
        fs::write(file, self.with(&text, row, place))
    }

    fn with(&self, text: &str, row: &str, place: impl Fn(&[&str]) -> usize) -> String {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let rule = self.header.split('|').skip(2).map(|_| "---|");
        let rule = format!("|{}", rule.collect::<String>());
        let header = lines.iter().position(|line| line == self.header);
        let first = 2 + header.unwrap_or_else(|| {
            lines.extend([String::new(), self.header.to_owned(), rule]);
            lines.len() - 2
        });
        let rows = lines[first..]
            .iter()
            .take_while(|line| line.starts_with('|'));
        let mut rows: Vec<_> = rows.cloned().collect();
        let end = first + rows.len();
        rows.retain(|old| self.key(old) != self.key(row));
        rows.push(row.to_owned());
        rows.sort_by_key(|row| place(&self.key(row)));
        lines.splice(first..end, rows);
        lines.join("\n") + "\n"
    }

    fn key<'a>(&self, row: &'a str) -> Vec<&'a str> {
        let cells = row.split('|').skip(1).take(self.keys);
        cells.map(str::trim).collect()
    }
}

/// How busy this machine has been in the last minute.
pub fn load() -> String {
    let all = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    all.split(' ').next().unwrap_or_default().to_owned()
}

/// What the bench checks of itself before it writes anything.
///
/// # Errors
/// What is not so.
pub fn check() -> Result<(), String> {
    let table = Table {
        header: "| row | s |",
        keys: 1,
    };
    let place = |key: &[&str]| usize::from(key != ["a"]);
    let mut text = "words\n".to_owned();
    for row in ["| b | 1 |", "| a | 2 |", "| b | 3 |"] {
        text = table.with(&text, row, place);
    }
    let wanted = "words\n\n| row | s |\n|---|---|\n| a | 2 |\n| b | 3 |\n";
    if text == wanted {
        Ok(())
    } else {
        Err(format!("a table is {text:?}"))
    }
}
