//! Tables of plain text: columns padded to their widest cell, two spaces between them.

/// Lays out rows under a head. Cells must be single lines. The last column is not padded.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    std::iter::once(&head).chain(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters() {
        let rows = vec![vec!["a".into(), "1".into(), "x".into()], vec!["äöü".into(), String::new(), "yy".into()]];
        assert_eq!(table(&["ID", "NO", "LAST"], &rows), "ID   NO  LAST\na    1   x\näöü      yy\n");
        assert_eq!(table(&["ID", "NO"], &[]), "ID  NO\n");
    }
}
