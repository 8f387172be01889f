//! The size of what Lambda loads at a cold start, held to a budget.

use std::process::Stdio;

use crate::deploy;
use crate::steps::{Result, program, root};

/// Most bytes of the zip of a function that has nothing to do with payments.
const BUDGET: u64 = 4_000_000;
/// Most bytes of the others.
const LARGE_BUDGET: u64 = 5_000_000;
/// The others: those with the payment vendors' clients, and the gateway, because the tokens' vocabulary is 0.9 MB of its
/// zip that no layout makes smaller.
const LARGE: [&str; 4] = ["tenantry-billing", "tenantry-chat", "tenantry-quota-reset", "tenantry-webhooks"];

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
    over(&sizes).map_or(Ok(()), Err)
}

/// What to say when some are too large.
fn over(sizes: &[(String, u64)]) -> Option<String> {
    let budget = |package: &str| if LARGE.contains(&package) { LARGE_BUDGET } else { BUDGET };
    let large = sizes.iter().filter(|(package, bytes)| *bytes > budget(package));
    let named: Vec<_> =
        large.map(|(package, bytes)| format!("{package} ({bytes} bytes of {})", budget(package))).collect();
    (!named.is_empty()).then(|| format!("over their budgets, zipped: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::over;

    #[test]
    fn what_is_too_large_is_named() {
        let sizes = |auth, chat| [("tenantry-auth".to_owned(), auth), ("tenantry-chat".to_owned(), chat)];
        assert_eq!(over(&sizes(4_000_000, 5_000_000)), None);
        let said = over(&sizes(4_000_001, 5_000_000)).unwrap();
        assert!(said.contains("tenantry-auth (4000001 bytes of 4000000)") && !said.contains("chat"), "{said}");
        let said = over(&sizes(1, 5_000_001)).unwrap();
        assert!(said.contains("tenantry-chat (5000001 bytes of 5000000)") && !said.contains("auth"), "{said}");
    }
}
