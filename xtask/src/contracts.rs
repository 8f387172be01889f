//! Rules about the repository's text that no compiler checks: nothing of one machine or one person in it, no secrets,
//! no promises in comments, links that lead somewhere, tests that are there. Long files are only reported.

use std::path::{Path, PathBuf};

use crate::steps::{Result, root};

/// Above this, ask whether two things live in the file.
const LONG_FILE_LINES: usize = 600;
/// Folders that are made, not written.
const MADE: [&str; 8] = [".git", ".tenantry", ".venv", "__pycache__", "node_modules", "target", "dist", ".aws-sam"];
/// Says where each rule of security is met. A test that it names and nobody has would be a false promise.
const SECURITY: &str = "docs/security.md";
/// Where a path in the prose of README.md, ARCHITECTURE.md and [`SECURITY`] begins.
const OURS: [&str; 12] = [
    "benches/",
    "console/",
    "docs/",
    "functions/",
    "fuzz/",
    "host/",
    "infra/",
    "shared/",
    "tests/",
    "xtask/",
    ".ci/",
    ".config/",
];

/// What no file may contain, and why. Each is put together from two parts, or this file would contain it.
const FORBIDDEN: [(&str, &str); 9] = [
    (concat!("/home", "/"), "a path of one machine"),
    (concat!("/root", "/"), "a path of one machine"),
    (concat!("/Users", "/"), "a path of one machine"),
    (concat!("C:\\", "Users"), "a path of one machine"),
    (concat!("<<<<", "<<< "), "a merge that was not finished"),
    (concat!(">>>>", ">>> "), "a merge that was not finished"),
    (concat!("PRIVATE", " KEY-----"), "a private key; tests make theirs when they run"),
    (concat!("TO", "DO"), "a promise; open an issue instead"),
    (concat!("FIX", "ME"), "a promise; open an issue instead"),
];

/// How keys of live accounts begin at Stripe. Code may name the beginning; a whole key has at least [`SECRET`] letters more.
const LIVE_KEYS: [&str; 2] = ["sk_live_", "rk_live_"];

/// Letters and digits in a row that make a secret.
const SECRET: usize = 16;

/// What a lock file or a list of requirements may not contain: where packages come from is the machine's affair.
const FORBIDDEN_IN_LOCKS: [&str; 4] = ["\"resolved\": \"http", "--index-url", "--extra-index-url", "--find-links"];

/// Checks every rule and prints every breach before it fails.
pub(crate) fn check() -> Result {
    let root = root();
    let mut breaches = Vec::new();
    for path in files(&root)? {
        // What is not UTF-8 is not text.
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        breaches.extend(forbidden(&path, &text, &root));
        if path.extension().is_some_and(|extension| extension == "md") {
            breaches.extend(dead_links(&path, &text, &root));
        }
        if path == Path::new(SECURITY) {
            breaches.extend(missing_tests(&text, &root));
        }
        let lines = text.lines().count();
        if path.extension().is_some_and(|extension| extension == "rs") && lines > LONG_FILE_LINES {
            println!("warning: {} has {lines} lines; do two things live there?", path.display());
        }
    }
    for breach in &breaches {
        eprintln!("{breach}");
    }
    if breaches.is_empty() { Ok(()) } else { Err(format!("{} breaches of the repository's rules", breaches.len())) }
}

/// Every file that is written by hand or checked in, relative to the root.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() && !MADE.iter().any(|made| entry.file_name() == *made) {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.extend(entry.path().strip_prefix(root).map(Path::to_owned));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn forbidden(path: &Path, text: &str, root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let root = root.to_string_lossy();
    // A root like `/app` is a word that may well occur.
    let is_telling = root.matches(['/', '\\']).count() > 1;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_lock = name.contains("lock") || name.starts_with("requirements");
    for (number, line) in text.lines().enumerate() {
        let mut tell = |what: &str, why: &str| {
            found.push(format!("{}:{}: `{what}` is {why}", path.display(), number + 1));
        };
        for (word, why) in FORBIDDEN {
            if contains_word(line, word) {
                tell(word, why);
            }
        }
        for beginning in LIVE_KEYS.into_iter().filter(|beginning| has_secret(line, beginning)) {
            tell(beginning, "the beginning of a live account's key, and the key stands behind it");
        }
        if is_telling && line.contains(&*root) {
            tell(&root, "a path of one machine");
        }
        for word in FORBIDDEN_IN_LOCKS.into_iter().filter(|word| is_lock && line.contains(word)) {
            tell(word, "where one machine gets its packages from");
        }
    }
    found
}

/// Whether a whole key with this beginning is in the line.
fn has_secret(line: &str, beginning: &str) -> bool {
    line.match_indices(beginning).any(|(at, _)| {
        let key = line[at + beginning.len()..].chars();
        key.take_while(char::is_ascii_alphanumeric).count() >= SECRET
    })
}

/// Whether the line contains the word, not as a part of a longer one.
fn contains_word(line: &str, word: &str) -> bool {
    let is_part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '.');
    line.match_indices(word).any(|(at, _)| {
        let starts_inside = is_part(line[..at].chars().next_back());
        let ends_inside = word.ends_with(char::is_alphabetic) && is_part(line[at + word.len()..].chars().next());
        !starts_inside && !ends_inside
    })
}

/// Links of a Markdown file to files that do not exist; in those at the root and [`SECURITY`] also paths in backquotes.
fn dead_links(path: &Path, text: &str, root: &Path) -> Vec<String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut dead = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for target in linked(line) {
            if !root.join(folder).join(target).exists() {
                dead.push(format!("{}:{}: the link to `{target}` leads nowhere", path.display(), number + 1));
            }
        }
        if folder.as_os_str().is_empty() || path == Path::new(SECURITY) {
            for target in quoted_paths(line).filter(|target| !root.join(target).exists()) {
                dead.push(format!("{}:{}: there is no `{target}`", path.display(), number + 1));
            }
        }
    }
    dead
}

/// The targets of a line's links that are files: `[text](target#part)`.
fn linked(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
        (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).then_some(target)
    })
}

/// The paths of a line that stand in backquotes, as far as they are plain: no placeholders, no patterns.
fn quoted_paths(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter(|quoted| {
        OURS.iter().any(|folder| quoted.starts_with(folder))
            && !quoted.contains(['*', '<', '{', '…', ' ', ':', '$', '('])
    })
}

/// Tests that [`SECURITY`] names and that are not there (any more).
fn missing_tests(text: &str, root: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (place, name) in quoted_tests(line) {
            let file = if place.contains('/') { place.to_owned() } else { format!("tests/tests/suite/{place}.rs") };
            // A file that cannot be read has no test.
            let code = std::fs::read_to_string(root.join(&file)).unwrap_or_default();
            if !has_test(&code, name) {
                let at = number + 1;
                missing.push(format!("{SECURITY}:{at}: {file} has no test `{name}`; name the one that shows this now"));
            }
        }
    }
    missing
}

/// The tests that a line names in backquotes: `module::name` of the suite, or `path.rs::name`.
fn quoted_tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::"))
}

/// Whether the code has a function of this name with a test's attribute.
fn has_test(code: &str, name: &str) -> bool {
    let lines: Vec<_> = code.lines().map(str::trim_start).collect();
    let is_it = |line: &str| {
        let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let is_attribute = |line: &&&str| line.starts_with("#[");
    let is_tests = |line: &&str| *line == "#[test]" || line.starts_with("#[tokio::test");
    lines
        .iter()
        .enumerate()
        .any(|(at, line)| is_it(line) && lines[..at].iter().rev().take_while(is_attribute).any(is_tests))
}

#[cfg(test)]
mod tests {
    use super::{contains_word, forbidden, has_test, linked, quoted_paths, quoted_tests};
    use std::path::Path;

    #[test]
    fn words_are_whole() {
        let word = concat!("TO", "DO");
        assert!(contains_word(&format!("// {word}: later"), word));
        assert!(!contains_word("MASTODON", word));
        assert!(!contains_word("https://example.com/x/root/y", concat!("x/root", "/z")));
        assert!(contains_word(concat!("in /home", "/someone"), concat!("/home", "/")));
        assert!(!contains_word(concat!("~/x/home", "/page"), concat!("/home", "/")));
    }

    #[test]
    fn lock_files_do_not_say_where_packages_come_from() {
        let line = "      \"resolved\": \"https://registry.example/openai.tgz\",";
        assert_eq!(forbidden(Path::new("package-lock.json"), line, Path::new("/x")).len(), 1);
        assert_eq!(forbidden(Path::new("README.md"), line, Path::new("/x")).len(), 0);
        assert_eq!(forbidden(Path::new("a.md"), "see /srv/build/x", Path::new("/srv/build")).len(), 1);
    }

    #[test]
    fn keys_of_live_accounts_are_found_by_what_makes_them_secret() {
        let line = format!("key: {}51MabcdefGHIJKLmnop", concat!("rk_", "live_"));
        assert_eq!(forbidden(Path::new("a.md"), &line, Path::new("/x")).len(), 1);
        assert!(forbidden(Path::new("a.md"), "begins with `sk_live_`, as in sk_live_1", Path::new("/x")).is_empty());
    }

    #[test]
    fn links_and_paths_are_found() {
        let line =
            "see [the API](docs/api.md#errors), [x](https://x.y/z), [here](#part) and `docs/a.md` or `docs/<id>.md`";
        assert_eq!(linked(line).collect::<Vec<_>>(), ["docs/api.md"]);
        assert_eq!(quoted_paths(line).collect::<Vec<_>>(), ["docs/a.md"]);
    }

    #[test]
    fn tests_are_told_from_what_has_their_name() {
        let line = "| met | `auth::it_holds`, `a/b.rs::it_holds`; `docs/a.md` |";
        assert_eq!(quoted_tests(line).collect::<Vec<_>>(), [("auth", "it_holds"), ("a/b.rs", "it_holds")]);
        for test in [
            "#[test]\nfn it_holds() {",
            "    #[tokio::test(flavor = \"x\")]\n    #[cfg(unix)]\n    async fn it_holds() {",
        ] {
            assert!(has_test(test, "it_holds") && !has_test(test, "it_hold"), "{test}");
        }
        assert!(!has_test("#[test]\nfn other() {}\nfn it_holds() {}\n// fn it_holds()", "it_holds"));
    }
}
