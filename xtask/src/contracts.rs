//! Rules about the repository's text that no compiler checks: nothing of one machine or one person in it, no secrets,
//! no promises in comments, links that lead somewhere. Long files are only reported.

use std::path::{Path, PathBuf};

use crate::steps::{Result, root};

/// Above this, ask whether two things live in the file.
const LONG_FILE_LINES: usize = 600;
/// Folders that are made, not written.
const MADE: [&str; 8] = [".git", ".tenantry", ".venv", "__pycache__", "node_modules", "target", "dist", ".aws-sam"];
/// Where a path in the prose of README.md and ARCHITECTURE.md begins.
const OURS: [&str; 11] = [
    "benches/",
    "console/",
    "docs/",
    "functions/",
    "host/",
    "infra/",
    "shared/",
    "tests/",
    "xtask/",
    ".ci/",
    ".config/",
];

/// What no file may contain, and why. Each is put together from two parts, or this file would contain it.
const FORBIDDEN: [(&str, &str); 10] = [
    (concat!("/home", "/"), "a path of one machine"),
    (concat!("/root", "/"), "a path of one machine"),
    (concat!("/Users", "/"), "a path of one machine"),
    (concat!("C:\\", "Users"), "a path of one machine"),
    (concat!("<<<<", "<<< "), "a merge that was not finished"),
    (concat!(">>>>", ">>> "), "a merge that was not finished"),
    (concat!("PRIVATE", " KEY-----"), "a private key; tests make theirs when they run"),
    (concat!("sk_", "live_"), "a secret of a live account"),
    (concat!("TO", "DO"), "a promise; open an issue instead"),
    (concat!("FIX", "ME"), "a promise; open an issue instead"),
];

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
        if is_telling && line.contains(&*root) {
            tell(&root, "a path of one machine");
        }
        for word in FORBIDDEN_IN_LOCKS.into_iter().filter(|word| is_lock && line.contains(word)) {
            tell(word, "where one machine gets its packages from");
        }
    }
    found
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

/// Links of a Markdown file to files that do not exist; in the two files at the root also paths in backquotes.
fn dead_links(path: &Path, text: &str, root: &Path) -> Vec<String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut dead = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for target in linked(line) {
            if !root.join(folder).join(target).exists() {
                dead.push(format!("{}:{}: the link to `{target}` leads nowhere", path.display(), number + 1));
            }
        }
        if folder.as_os_str().is_empty() {
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

#[cfg(test)]
mod tests {
    use super::{contains_word, forbidden, linked, quoted_paths};
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
    fn links_and_paths_are_found() {
        let line =
            "see [the API](docs/api.md#errors), [x](https://x.y/z), [here](#part) and `docs/a.md` or `docs/<id>.md`";
        assert_eq!(linked(line).collect::<Vec<_>>(), ["docs/api.md"]);
        assert_eq!(quoted_paths(line).collect::<Vec<_>>(), ["docs/a.md"]);
    }
}
