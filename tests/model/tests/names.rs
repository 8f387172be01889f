//! The steps of the model are named as in the code.

use std::{fs, path::Path};

#[test]
fn every_step_is_where_the_readme_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = include_str!("../README.md").lines().filter_map(|line| {
        let (step, path) = line.strip_prefix("| `")?.strip_suffix("` |")?.split_once("` | `")?;
        path.ends_with(".rs").then_some((step, path))
    });
    let mut steps = 0;
    for (step, path) in rows {
        let code = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(code.contains(&format!("fn {step}(")), "{path} has no {step}");
        steps += 1;
    }
    assert!(steps > 10, "the table of steps was not found");
}
