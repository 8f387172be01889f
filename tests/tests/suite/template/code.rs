//! What the code of a function can do, read from its source: which variables it looks up, which operations of AWS it
//! calls, which partitions of the table it makes keys for.
//!
//! A call graph by name: a function's own code, then whatever of `web`, `store` and `commerce` it may reach. A name with a qualifier
//! (`Type::f`, `module::f`) leads to that one, a method to every method of that name, a value that is made to all that its
//! type's traits do, so the answer errs on the side of too much. Where that made the template grant more than is used, the
//! names would be worth changing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Calls of the AWS SDKs, and the action each needs. In a transaction every item needs that of its own operation.
const OPERATIONS: [(&str, &str); 16] = [
    (".get_item()", "dynamodb:GetItem"),
    (".put_item()", "dynamodb:PutItem"),
    ("Put::builder()", "dynamodb:PutItem"),
    (".update_item()", "dynamodb:UpdateItem"),
    ("Update::builder()", "dynamodb:UpdateItem"),
    (".delete_item()", "dynamodb:DeleteItem"),
    ("Delete::builder()", "dynamodb:DeleteItem"),
    ("ConditionCheck::builder()", "dynamodb:ConditionCheckItem"),
    (".query()", "dynamodb:Query"),
    (".scan()", "dynamodb:Scan"),
    (".batch_get_item()", "dynamodb:BatchGetItem"),
    (".batch_write_item()", "dynamodb:BatchWriteItem"),
    (".send_message()", "sqs:SendMessage"),
    (".send_message_batch()", "sqs:SendMessage"),
    (".send_email()", "ses:SendEmail"),
    (".get_secret_value()", "secretsmanager:GetSecretValue"),
];

/// What some code can do.
#[derive(Debug, Default, Clone)]
pub(crate) struct Abilities {
    pub(crate) variables: BTreeSet<String>,
    pub(crate) actions: BTreeSet<String>,
    pub(crate) partitions: BTreeSet<String>,
    pub(crate) metrics: BTreeSet<String>,
    /// For each action and variable, the calls that lead to it.
    pub(crate) reasons: BTreeMap<String, String>,
}

impl Abilities {
    /// What there is to know about names that stand on one side only.
    pub(crate) fn explain<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> String {
        let reason =
            |name: &String| self.reasons.get(name).cloned().unwrap_or_else(|| "nothing leads to it".to_owned());
        names.into_iter().map(|name| format!("\n  {name}: {}", reason(name))).collect()
    }
}

/// A `fn` of the sources.
struct Function {
    name: String,
    /// Type of the `impl` it stands in.
    owner: Option<String>,
    /// Whether that `impl` is of a trait.
    of_trait: bool,
    /// File's or folder's name, as a path would say.
    module: String,
    is_store_key: bool,
    is_method: bool,
    has_parameters: bool,
    body: String,
    /// The whole file, for its constants.
    file: usize,
}

/// The sources of some crates.
pub(crate) struct Sources {
    files: Vec<(PathBuf, String)>,
    functions: Vec<Function>,
    by_name: BTreeMap<String, Vec<usize>>,
    /// `T#`, `K#`, … as the table of `keys.rs` lists them.
    known_partitions: BTreeSet<String>,
    /// Variables with names that stand in the catalogue.
    vendor_variables: BTreeSet<String>,
}

impl Sources {
    /// The crates below `root` that a function consists of.
    pub(crate) fn read(root: &Path, function: &str) -> Self {
        let mut files = vec![];
        let own = format!("functions/{function}");
        let manifest = fs::read_to_string(root.join(&own).join("Cargo.toml")).unwrap();
        // Not every function is about money.
        let commerce = manifest.contains("tenantry-commerce.workspace").then_some("shared/commerce");
        for folder in [&*own, "shared/web", "shared/store"].into_iter().chain(commerce) {
            rust_files(&root.join(folder).join("src"), &mut files);
        }
        files.sort();
        let keys = fs::read_to_string(root.join("shared/store/src/keys.rs")).unwrap();
        let mut sources = Self {
            known_partitions: partitions_of_table(&keys),
            vendor_variables: vendor_variables(root),
            files,
            functions: vec![],
            by_name: BTreeMap::new(),
        };
        for file in 0..sources.files.len() {
            sources.functions.extend(functions_of(&sources.files[file].0, &sources.files[file].1, file));
        }
        for (index, function) in sources.functions.iter().enumerate() {
            sources.by_name.entry(function.name.clone()).or_default().push(index);
        }
        sources
    }

    /// What the function's own code can do, directly and by what it calls.
    pub(crate) fn abilities(&self, function: &str) -> Abilities {
        let own = format!("functions/{function}/src");
        let own = |file: usize| self.files[file].0.to_string_lossy().contains(&own);
        let takes_callers = self.files.iter().enumerate().any(|(file, (_, text))| own(file) && text.contains("Caller"));
        let is_root = |function: &Function| {
            // axum calls extractors, so no call of theirs stands anywhere.
            own(function.file) || (takes_callers && function.module == "caller")
        };
        let mut open: Vec<usize> = (0..self.functions.len()).filter(|i| is_root(&self.functions[*i])).collect();
        let mut called_by: BTreeMap<usize, Option<usize>> = open.iter().map(|root| (*root, None)).collect();
        let mut abilities = Abilities::default();
        while let Some(index) = open.pop() {
            let function = &self.functions[index];
            let before = &abilities.actions | &abilities.variables;
            self.look(function, &mut abilities);
            for new in (&abilities.actions | &abilities.variables).difference(&before) {
                abilities.reasons.insert(new.clone(), self.path_to(index, &called_by));
            }
            for next in self.calls(function) {
                called_by.entry(next).or_insert_with(|| {
                    open.push(next);
                    Some(index)
                });
            }
        }
        abilities
    }

    /// `caller → … → called`, each with its file.
    fn path_to(&self, mut index: usize, called_by: &BTreeMap<usize, Option<usize>>) -> String {
        let mut path = vec![];
        loop {
            let function = &self.functions[index];
            path.push(format!("{}::{}", function.owner.as_ref().unwrap_or(&function.module), function.name));
            match called_by[&index] {
                Some(caller) => index = caller,
                None => break,
            }
        }
        path.reverse();
        path.join(" → ")
    }

    fn look(&self, function: &Function, abilities: &mut Abilities) {
        let body = &function.body;
        for (call, action) in OPERATIONS {
            if body.contains(call) {
                abilities.actions.insert(action.to_owned());
            }
        }
        if function.is_store_key
            && let Some(partition) = self.known_partitions.iter().find(|partition| {
                !["tenant(", "shard(", "user_partition("].iter().any(|other| body.contains(other))
                    && body.contains(&format!("\"{partition}"))
            })
        {
            abilities.partitions.insert(partition.clone());
        }
        for reader in ["env.required(", "env.optional(", "env.parsed(", "config::queue(env, ", "config::queue(&env, "] {
            for (at, _) in body.match_indices(reader) {
                abilities.variables.extend(self.variables(function, &body[at + reader.len()..]));
            }
        }
        for (at, call) in body.match_indices("telemetry::metric(") {
            // (now, NAME, value)
            let name = body[at + call.len()..].split(", ").nth(1).unwrap_or_default();
            abilities.metrics.extend(self.text_of(function, name));
        }
    }

    /// The variables that a look-up with these arguments reads.
    fn variables(&self, function: &Function, arguments: &str) -> Vec<String> {
        if arguments.starts_with("&vendor.") {
            return self.vendor_variables.iter().cloned().collect();
        }
        let path = self.files[function.file].0.to_string_lossy();
        // `Env` itself, and `config::queue`, whose callers say which variable.
        if path.ends_with("web/src/config.rs") && arguments.starts_with("name") {
            return vec![];
        }
        let name = self.text_of(function, arguments);
        assert!(name.is_some(), "{path}: fn {} looks up a variable whose name is not to be seen", function.name);
        name.into_iter().collect()
    }

    /// A literal, or the constant of that name in the same file.
    fn text_of(&self, function: &Function, expression: &str) -> Option<String> {
        if let Some(literal) = expression.strip_prefix('"') {
            return literal.split('"').next().map(str::to_owned);
        }
        let constant: String = expression.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let value = self.files[function.file].1.split_once(&format!("const {constant}: &str = \""))?.1;
        value.split('"').next().map(str::to_owned)
    }

    /// The functions that may be called in a body.
    fn calls(&self, caller: &Function) -> Vec<usize> {
        let mut called = vec![];
        let text = &caller.body;
        for (at, _) in text.match_indices('(') {
            let before = text[..at].trim_end_matches(|c: char| c.is_alphanumeric() || c == '_');
            let name = &text[before.len()..at];
            let Some(candidates) = self.by_name.get(name) else { continue };
            let has_arguments = !text[at + 1..].trim_start().starts_with(')');
            let qualifier = before.strip_suffix("::").map(|path| {
                let start = path.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
                &path[start..]
            });
            let is_method = before.ends_with('.');
            called.extend(candidates.iter().copied().filter(|index| {
                let function = &self.functions[*index];
                match qualifier {
                    Some("Self") => function.owner == caller.owner && function.file == caller.file,
                    Some(qualifier) => function.owner.as_deref() == Some(qualifier) || function.module == qualifier,
                    // SDK builders have a `send()` without arguments; queues send something.
                    None if is_method => {
                        function.is_method
                            && !function.of_trait
                            && function.has_parameters == has_arguments
                            && may_be_called_on(receiver(before), caller, function)
                    }
                    None => !function.is_method && function.owner.is_none(),
                }
            }));
        }
        // What is made of a type may be handed on, to be called through the type's traits.
        let owners: BTreeSet<_> = called.iter().filter_map(|index| self.functions[*index].owner.as_ref()).collect();
        let through_traits = |function: &Function| {
            function.of_trait && function.owner.as_ref().is_some_and(|owner| owners.contains(owner))
        };
        called.extend((0..self.functions.len()).filter(|index| through_traits(&self.functions[*index])));
        called
    }
}

/// The last word before `.method(`.
fn receiver(before: &str) -> &str {
    let before = before.trim_end_matches('.').trim_end();
    &before[before.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len()..]
}

/// `self.page()` is a method of the caller's own type, and a store is called `store` everywhere: so `Store::all` is not
/// `Iterator::all`.
fn may_be_called_on(receiver: &str, caller: &Function, function: &Function) -> bool {
    match receiver {
        "self" => function.owner == caller.owner,
        "store" => function.owner.as_deref() == Some("Store"),
        _ => function.owner.as_deref() != Some("Store"),
    }
}

fn rust_files(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            rust_files(&path, files);
        } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            files.push((path, without_comments(text)));
        }
    }
}

/// Comments would speak of calls that nobody makes.
fn without_comments(text: &str) -> String {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(code).collect::<Vec<_>>().join("\n")
}

fn functions_of(path: &Path, text: &str, file: usize) -> Vec<Function> {
    let stem = path.file_stem().unwrap().to_string_lossy();
    let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy();
    let module = if stem == "mod" { folder } else { stem }.into_owned();
    let is_store_key = path.ends_with("store/src/keys.rs");
    let owners = impls_of(text);
    let mut functions = vec![];
    for (at, _) in text.match_indices("fn ") {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + 3..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // A declaration in a trait, or a type like `fn (u8)`.
        let Some(open) = body_of(rest) else { continue };
        if name.is_empty() {
            continue;
        }
        let parameters = rest[..open].split_once('(').map_or("", |(_, parameters)| parameters).trim_start();
        let receiver = ["&self", "&mut self", "self", "mut self", "&'a self"];
        let receiver = receiver.into_iter().find(|receiver| parameters.starts_with(receiver));
        let others = parameters[receiver.map_or(0, str::len)..].trim_start_matches([',', ' ', '\n']);
        let owner = owners.iter().find(|(range, ..)| range.contains(&at));
        functions.push(Function {
            name,
            owner: owner.map(|(_, owner, _)| owner.clone()),
            of_trait: owner.is_some_and(|(.., of_trait)| *of_trait),
            module: module.clone(),
            is_store_key,
            is_method: receiver.is_some(),
            has_parameters: !others.starts_with(')'),
            body: block(&rest[open..]).to_owned(),
            file,
        });
    }
    functions
}

/// Where the body of a `fn` begins, if it has one: `;` ends a declaration, unless it stands in `[u8; 32]`.
fn body_of(declaration: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in declaration.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The `impl` blocks, the types they are of, and whether they are of a trait.
fn impls_of(text: &str) -> Vec<(std::ops::Range<usize>, String, bool)> {
    let starts = text.match_indices("\nimpl").map(|(at, _)| at + 1);
    starts
        .filter_map(|at| {
            let open = at + text[at..].find('{')?;
            let head = text[at..open].split("where").next()?;
            let of = head.rsplit(" for ").next()?.trim_start_matches("impl");
            // `impl<S: Send> Type<S>`: the last word before the type's own parameters.
            let of = of.rsplit("> ").next()?.trim();
            let name: String = of.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            Some((at..open + block(&text[open..]).len(), name, head.contains(" for ")))
        })
        .collect()
}

/// From a `{` to its `}`. Braces in strings come in pairs, as `format!` wants them.
fn block(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return &text[..=at];
                }
            }
            _ => {}
        }
    }
    text
}

/// First column of the table in the module's documentation.
fn partitions_of_table(keys: &str) -> BTreeSet<String> {
    let rows = keys.lines().filter_map(|line| line.strip_prefix("//! | `"));
    rows.filter_map(|row| row.split_once('#').map(|(prefix, _)| format!("{prefix}#"))).collect()
}

/// `…_env = "NAME"` of every vendor but the made-up one, which has none.
fn vendor_variables(root: &Path) -> BTreeSet<String> {
    let catalogue: toml::Table = fs::read_to_string(root.join("infra/catalogue.toml")).unwrap().parse().unwrap();
    let vendors = catalogue["vendor"].as_array().unwrap().iter().filter(|v| v["id"].as_str() != Some("sandbox"));
    vendors.flat_map(|v| ["api_key_env", "base_url_env"].map(|k| v[k].as_str().unwrap().to_owned())).collect()
}
