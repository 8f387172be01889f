//! CSV (RFC 4180) that is safe to open in a spreadsheet.

use std::fmt::Display;

use http::{HeaderMap, header};

/// `Content-Type` of a table with column names.
pub const CSV_TYPE: &str = "text/csv; charset=utf-8; header=present";

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

    /// A cell of text. A spreadsheet takes a text that begins like a formula for one and runs it, so such
    /// a text gets an apostrophe in front (OWASP, "CSV injection").
    pub fn text(&mut self, text: &str) {
        self.separate();
        let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
        let guard = if formula { "'" } else { "" };
        if text.contains([',', '"', '\r', '\n']) {
            self.out.push_str(&format!("\"{guard}{}\"", text.replace('"', "\"\"")));
        } else {
            self.out.push_str(guard);
            self.out.push_str(text);
        }
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
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        assert_eq!(cell("=HYPERLINK(\"x\",1)"), "\"'=HYPERLINK(\"\"x\"\",1)\"");
        assert_eq!(cell("a=1"), "a=1");
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
