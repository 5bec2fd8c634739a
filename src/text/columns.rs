//! ○ Tables for people: cells in columns.

/// The rows as lines. Each column but the last is as wide as its longest cell, and at least as wide as
/// `least` says.
pub fn lines<const N: usize>(rows: &[[String; N]], least: &[usize]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        let least = least.get(column).copied().unwrap_or(0);
        cells.max().unwrap_or(0).max(least)
    };
    let widths: Vec<usize> = (0..N - 1).map(width).chain([0]).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}
