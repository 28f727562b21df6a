//! Plain text tables: columns padded to their widest cell, three spaces apart, as Kubernetes' tools print them.

/// Aligns `rows` (the header first) into lines.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::aligned;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let rows = [
            vec!["NAME".to_owned(), "AGE".to_owned()],
            vec!["reviews-v1".to_owned(), "2s".to_owned()],
        ];
        assert_eq!(aligned(&rows), "NAME         AGE\nreviews-v1   2s\n");
    }
}
