//! CSV (RFC 4180) that is safe to open in a spreadsheet.

use std::fmt::Display;

use http::{HeaderMap, header};

/// `Content-Type` of a table with column names.
pub const CSV_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// What may end a cell that has no quotes around it, besides the comma.
const SEPARATORS: [char; 4] = [';', '\t', '\r', '\n'];

/// What a formula begins with; the wide ones are taken for the others in some countries.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Whether a cell that begins with `text` may be taken for a formula. Blanks and quotes may be left out by who reads it.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches(|char: char| char == '"' || char.is_whitespace() && !SEPARATORS.contains(&char))
        .starts_with(FORMULA)
}

/// A table under construction.
pub struct Csv {
    out: String,
    in_row: bool,
}

impl Csv {
    /// A table with a row of column names.
    #[must_use]
    pub fn with_header(columns: &[&str]) -> Self {
        let mut csv = Self::rows();
        for column in columns {
            csv.text(column);
        }
        csv.end_row();
        csv
    }

    /// Rows alone, to follow a table that was begun before.
    #[must_use]
    pub const fn rows() -> Self {
        Self { out: String::new(), in_row: false }
    }

    /// A cell of text. A spreadsheet takes a text that begins like a formula for one and runs it, so such a text gets an
    /// apostrophe in front (OWASP, "CSV injection"). So does what would begin a cell where lists are separated by `;`
    /// or tabs: a spreadsheet with the settings of such a country splits there, also between quotes, which for it stand in
    /// the middle of a cell.
    pub fn text(&mut self, text: &str) {
        self.separate();
        let quote = if text.contains([',', '"', '\r', '\n']) { "\"" } else { "" };
        self.out.push_str(quote);
        if text.starts_with(['\t', '\r', '\n']) || is_formula(text) {
            self.out.push('\'');
        }
        let mut rest = text.chars();
        while let Some(char) = rest.next() {
            self.out.push(char);
            if char == '"' {
                self.out.push(char);
            }
            if SEPARATORS.contains(&char) && is_formula(rest.as_str()) {
                self.out.push('\'');
            }
        }
        self.out.push_str(quote);
    }

    /// A cell of text that may be empty.
    pub fn optional(&mut self, text: Option<&str>) {
        self.text(text.unwrap_or(""));
    }

    /// A cell with a number or a truth value, which need no guard.
    pub fn plain(&mut self, value: impl Display) {
        self.separate();
        self.out.push_str(&value.to_string());
    }

    /// Ends the row.
    pub fn end_row(&mut self) {
        self.out.push_str("\r\n");
        self.in_row = false;
    }

    /// The table.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }

    fn separate(&mut self) {
        if self.in_row {
            self.out.push(',');
        }
        self.in_row = true;
    }
}

/// Whether CSV is asked for by name, and at least as much as JSON (RFC 9110, 12.5.1).
#[must_use]
pub fn wants_csv(headers: &HeaderMap) -> bool {
    let (mut csv, mut json) = (0.0, 0.0);
    for value in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("").to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            let quality: f32 = quality.map_or(1.0, |text| text.parse().unwrap_or(0.0));
            match kind.as_str() {
                "text/csv" => csv = quality,
                "application/json" => json = quality,
                _ => {}
            }
        }
    }
    csv > 0.0 && csv >= json
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> String {
        let mut csv = Csv { out: String::new(), in_row: false };
        csv.text(text);
        csv.finish()
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("say \"hi\"\r\n"), "\"say \"\"hi\"\"\r\n\"");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        assert_eq!(cell("=HYPERLINK(\"x\",1)"), "\"'=HYPERLINK(\"\"x\"\",1)\"");
        assert_eq!(cell("a=1"), "a=1");
        assert_eq!(cell(" =1"), "' =1");
    }

    #[test]
    fn nothing_is_a_formula_wherever_a_line_is_split() {
        let texts = [
            "x;=1+1",
            "x\t@SUM(A1)",
            "x\r-1\n+1",
            "x; \u{a0}=1",
            "x;\"=HYPERLINK(\"\"y\"\")",
            ";;＝1",
            "{\"a\":\";=1+1;\",\"b\":\"\\t-1\"}",
            "\"=1\"",
        ];
        for text in texts {
            let mut csv = Csv::rows();
            csv.text(text);
            csv.text(text);
            csv.end_row();
            let row = csv.finish();
            for piece in row.split([';', '\t', '\r', '\n']) {
                let shown = piece.trim_start_matches(['"', ' ', '\u{a0}']);
                assert!(!shown.starts_with(['=', '+', '-', '@', '＝']), "{text:?} became {row:?}");
            }
            // And nothing is lost: an apostrophe is all that comes in.
            let shown = cell(text);
            let inner = shown.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&shown);
            assert_eq!(inner.replace("\"\"", "\"").replace('\'', ""), text);
        }
        assert_eq!(cell("a;=1; b;\t\"=2\""), "\"a;'=1; b;\t'\"\"=2\"\"\"");
        assert_eq!(cell("a;b; c\nd"), "\"a;b; c\nd\"");
    }

    #[test]
    fn rows_end_with_crlf() {
        let mut csv = Csv::with_header(&["name", "n"]);
        csv.optional(None);
        csv.plain(-1);
        csv.end_row();
        assert_eq!(csv.finish(), "name,n\r\n,-1\r\n");
    }

    #[test]
    fn csv_must_be_asked_for() {
        let accepts = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, text.parse().unwrap());
            wants_csv(&headers)
        };
        for text in ["text/csv", "TEXT/CSV; q=0.9, */*;q=0.1", "application/json;q=0.5, text/csv"] {
            assert!(accepts(text), "{text}");
        }
        for text in ["*/*", "text/*", "application/json", "text/csv;q=0", "application/json, text/csv;q=0.5"] {
            assert!(!accepts(text), "{text}");
        }
        assert!(!wants_csv(&HeaderMap::new()));
    }
}
