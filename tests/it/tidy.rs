//! What neither rustc nor clippy checks: the shape of the source tree. STYLE.md gives the reasons.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate is in the repository").to_owned()
}

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 5] = ["target", ".git", "longhaul-data", "node_modules", "vendor"];

/// Every file of the repository with one of these extensions, relative to its root.
pub(crate) fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository is readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                let foreign = FOREIGN.iter().any(|name| entry.file_name() == *name);
                folders.extend((!foreign).then_some(path));
            } else if path.extension().is_some_and(|found| extensions.iter().any(|wanted| found == *wanted)) {
                found.push(path.strip_prefix(&root).expect("it is below the root").to_owned());
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no files with {extensions:?}");
    found
}

/// The text of a file of the repository.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all complaints at once.
pub(crate) fn none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn source_files_are_short_and_say_what_they_are_for() {
    none(files(&["rs"]).iter().flat_map(|path| {
        let (text, path) = (text(path), path.display());
        let lines = text.lines().count();
        let long = (lines > 400).then(|| format!("{path}: {lines} lines, at most 400"));
        let mute =
            (!text.starts_with("//! ")).then(|| format!("{path}: does not start with a `//!` sentence"));
        [long, mute].into_iter().flatten()
    }));
}

#[test]
fn files_are_named_after_what_they_do() {
    let vague = ["utils.rs", "util.rs", "common.rs", "helper.rs", "helpers.rs", "misc.rs", "manager.rs"];
    none(
        files(&["rs"])
            .iter()
            .filter(|path| vague.iter().any(|name| path.ends_with(name)))
            .map(|path| format!("{}: name the file after the one thing it does", path.display())),
    );
}

#[test]
fn nothing_unfinished_or_private_is_left_in_the_text() {
    // Written in halves, so that this file passes its own test.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X "),
        concat!("unimplemented", "!("),
        concat!("todo", "!("),
        concat!("dbg", "!("),
        concat!("#[", "allow("),
        concat!("#[", "ignore"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/wo", "rk/"),
    ];
    none(files(&["rs", "md", "sql", "toml", "yaml", "yml", "js", "css", "html"]).iter().flat_map(|path| {
        let text = text(path);
        let found: Vec<String> = text
            .lines()
            .enumerate()
            .flat_map(|(line, text)| {
                words.iter().filter(|word| text.contains(**word)).map(move |word| (line, word))
            })
            .map(|(line, word)| format!("{}:{}: {word}", path.display(), line + 1))
            .collect();
        found
    }));
}

#[test]
fn libraries_do_not_print() {
    let library = |path: &&PathBuf| {
        let path = path.to_string_lossy();
        ["api/src", "worker/src", "shared/src"].iter().any(|folder| path.starts_with(folder))
    };
    none(files(&["rs"]).iter().filter(library).filter(|path| !path.ends_with("main.rs")).flat_map(|path| {
        let text = text(path);
        let prints = text.lines().enumerate().filter(|(_, line)| {
            ["println!(", "eprintln!(", "print!("].iter().any(|word| line.trim_start().starts_with(word))
        });
        prints.map(|(line, _)| format!("{}:{}: prints", path.display(), line + 1)).collect::<Vec<_>>()
    }));
}

#[test]
fn links_between_documents_lead_somewhere() {
    none(files(&["md"]).iter().flat_map(|path| {
        let here = path.parent().unwrap_or(Path::new("")).to_owned();
        let text = text(path);
        let dead = |target: &str| !root().join(&here).join(target).exists();
        let links = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split_once(')'));
        links
            .map(|(target, _)| target.split('#').next().unwrap_or_default())
            .filter(|target| !target.is_empty() && !target.contains("://") && dead(target))
            .map(|target| format!("{}: dead link to {target}", path.display()))
            .collect::<Vec<_>>()
    }));
}

#[test]
fn what_must_be_one_is_one() {
    let lock = text("Cargo.lock");
    let versions = |name: &str| lock.lines().filter(|line| *line == format!("name = \"{name}\"")).count();
    let ones =
        ["rustls", "redis", "sqlx", "hyper", "tokio", "tungstenite", "tokio-tungstenite", "axum", "reqwest"];
    none(
        ones.iter()
            .filter(|name| versions(name) != 1)
            .map(|name| format!("Cargo.lock: {} versions of {name}, exactly one is wanted", versions(name))),
    );
}

#[test]
fn the_rules_on_dependencies_are_written_down() {
    let deny = text("deny.toml");
    for crate_name in ["ring", "openssl-sys", "native-tls", "sqlx", "redis", "reqwest"] {
        assert!(deny.contains(&format!("crate = \"{crate_name}\"")), "deny.toml has no rule on {crate_name}");
    }
}

/// Tables with their columns, as the migrations of one database make them. Order and indices are each engine's own business.
fn schema(sql: &str) -> BTreeMap<String, BTreeSet<String>> {
    let (mut tables, mut open) = (BTreeMap::<String, BTreeSet<String>>::new(), None);
    for line in sql.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("create"), Some("table"), Some(name)) => open = Some(name.to_owned()),
            (Some(word), ..) if word.starts_with(')') => open = None,
            (Some("primary" | "--"), ..) => {}
            (Some(column), Some(_), _) => {
                if let Some(table) = &open {
                    tables.entry(table.clone()).or_default().insert(column.to_owned());
                }
            }
            _ => {}
        }
    }
    tables
}

#[test]
fn migrations_are_twins() {
    let of = |folder: &str| -> Vec<PathBuf> {
        files(&["sql"])
            .into_iter()
            .filter(|path| path.starts_with(Path::new("migrations").join(folder)))
            .collect()
    };
    let (postgres, sqlite) = (of("postgres"), of("sqlite"));
    let names = |paths: &[PathBuf]| -> Vec<String> {
        paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
    };
    assert_eq!(names(&postgres), names(&sqlite), "the two folders have the same numbers and names");
    for (left, right) in postgres.iter().zip(&sqlite) {
        let (tables, twins) = (schema(&text(left)), schema(&text(right)));
        assert_eq!(tables, twins, "{} and {} make the same tables", left.display(), right.display());
        assert!(text(left).starts_with("-- Why"), "{} does not say why", left.display());
    }
}

#[test]
fn containers_have_no_privileges() {
    let user =
        text("Dockerfile").lines().filter_map(|line| line.strip_prefix("USER ")?.parse().ok()).next_back();
    assert!(user.is_some_and(|id: u32| id > 0), "the image runs as a user that is a number and not root");
    let compose = text("compose.yaml");
    let ours =
        compose.split("\n\n").find(|part| part.starts_with("x-longhaul:") || part.contains("\nx-longhaul:"));
    let ours = ours.expect("what our services have in common");
    let wanted = ["read_only: true", r#"cap_drop: ["ALL"]"#, r#"security_opt: ["no-new-privileges:true"]"#];
    none(
        wanted
            .iter()
            .filter(|line| !ours.contains(*line))
            .map(|line| format!("compose.yaml: {line} is gone")),
    );
}
