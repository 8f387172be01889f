//! The size of what Lambda loads at a cold start, held to a budget.

use std::process::Stdio;

use crate::deploy;
use crate::steps::{Result, program, root};

/// Most bytes of a function's zip. None of them handles payments, for which 4 MB are the aim: the gateway is above it,
/// because the tokens' vocabulary is 0.9 MB of its zip that no layout makes smaller.
const BUDGET: u64 = 5_000_000;

/// Prints a line of sizes for each archive it would make, in the order of its arguments.
const MEASURE: &str = "import io, sys, zipfile
for path in sys.argv[1:]:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path, 'bootstrap')
    print(zipped.tell())
";

/// Measures the binaries that have been built, and fails when one of them is over the budget.
pub(crate) fn check() -> Result {
    let packages = deploy::packages()?;
    let binary = |package: &String| root().join("target/lambda").join(package).join("bootstrap");
    let mut command = program("python3");
    command.args(["-c", MEASURE]).args(packages.iter().map(binary)).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("`python3` cannot be started ({error}); install it"))?;
    if !output.status.success() {
        return Err(format!("the binaries cannot be measured: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let zipped: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if zipped.len() != packages.len() {
        return Err(format!("{} sizes of {} binaries", zipped.len(), packages.len()));
    }
    let sizes: Vec<_> = packages.into_iter().zip(zipped).collect();
    for (package, bytes) in &sizes {
        println!("{package}: {} KB zipped", bytes / 1000);
    }
    over(&sizes, BUDGET).map_or(Ok(()), Err)
}

/// What to say when some are too large.
fn over(sizes: &[(String, u64)], budget: u64) -> Option<String> {
    let large: Vec<_> = sizes.iter().filter(|(_, bytes)| *bytes > budget).collect();
    let named: Vec<_> = large.iter().map(|(package, bytes)| format!("{package} ({bytes} bytes)")).collect();
    (!named.is_empty()).then(|| format!("over the budget of {budget} bytes zipped: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::over;

    #[test]
    fn what_is_too_large_is_named() {
        let sizes = [("small".to_owned(), 10), ("large".to_owned(), 11)];
        assert_eq!(over(&sizes, 11), None);
        let said = over(&sizes, 10).unwrap();
        assert!(said.contains("large (11 bytes)") && !said.contains("small"), "{said}");
    }
}
