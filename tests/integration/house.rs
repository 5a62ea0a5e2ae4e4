//! Which file uses which: imports and paths of this crate's own sources, resolved to the file that defines what they
//! name.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, Token};

/// A name that a file takes from another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    /// The file that uses, without `.rs`: `webhook/mounts`.
    pub(crate) from: String,
    /// The file that defines.
    pub(crate) to: String,
    /// The room that the path leads to as it is written: what is re-exported there may be defined elsewhere.
    pub(crate) room: String,
    /// What is used.
    pub(crate) name: String,
}

type Path = Vec<String>;

/// One name of a `use`.
#[derive(Debug)]
struct Import {
    path: Path,
    name: String,
    is_public: bool,
}

/// All files, and what their `use`s bring.
#[derive(Debug, Default)]
struct House {
    files: BTreeSet<Path>,
    imports: BTreeMap<Path, Vec<Import>>,
    exports: BTreeMap<(Path, String), Path>,
}

/// Every arrow between two files.
pub(crate) fn arrows(sources: &[Source]) -> BTreeSet<Arrow> {
    let mut house = House::default();
    let mut bodies = BTreeMap::new();
    for source in sources {
        let module = module(&source.file);
        let (imports, body) = split_imports(&source.tokens);
        house.files.insert(module.clone());
        house.imports.insert(module.clone(), imports);
        bodies.insert(module, body);
    }
    for (module, imports) in &house.imports {
        for import in imports.iter().filter(|import| import.is_public) {
            if let Some(path) = house.absolute(module, &import.path) {
                house.exports.insert((module.clone(), import.name.clone()), path);
            }
        }
    }
    let mut found = BTreeSet::new();
    for (module, body) in &bodies {
        let imported = house.imports.get(module).into_iter().flatten().map(|import| import.path.clone());
        for written in imported.chain(paths(body)) {
            found.extend(house.arrow(module, &written));
        }
    }
    found
}

/// Files that use each other, directly or through others: each circle's files.
pub(crate) fn circles(arrows: &BTreeSet<Arrow>) -> Vec<BTreeSet<&str>> {
    let files: BTreeSet<&str> = arrows.iter().flat_map(|arrow| [arrow.from.as_str(), arrow.to.as_str()]).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = files.iter().map(|file| (*file, reachable(arrows, file))).collect();
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for file in files {
        let on_a_way_back = reached[file].iter().copied().filter(|other| reached[other].contains(file));
        let circle: BTreeSet<_> = on_a_way_back.collect();
        if !circle.is_empty() && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

fn reachable<'a>(arrows: &'a BTreeSet<Arrow>, file: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut left = vec![file];
    while let Some(file) = left.pop() {
        let next = arrows.iter().filter(|arrow| arrow.from == file).map(|arrow| arrow.to.as_str());
        left.extend(next.filter(|to| reached.insert(*to)));
    }
    reached
}

fn module(file: &str) -> Path {
    match file {
        "lib.rs" => Vec::new(),
        file => file.trim_end_matches(".rs").split('/').map(str::to_owned).collect(),
    }
}

/// Takes the `use`s out of a file.
fn split_imports(tokens: &[Token]) -> (Vec<Import>, Vec<Token>) {
    let (mut imports, mut body) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.word() == Some("use") {
            let before = at.checked_sub(1).and_then(|at| tokens.get(at));
            let is_public = before.is_some_and(|token| token.word() == Some("pub") || token.is_sign(")"));
            at = read_tree(tokens, at + 1, &[], is_public, &mut imports);
        } else {
            body.push(token.clone());
            at += 1;
        }
    }
    (imports, body)
}

/// Reads one tree of a `use`, and says where it ends.
fn read_tree(tokens: &[Token], mut at: usize, before: &[String], is_public: bool, into: &mut Vec<Import>) -> usize {
    let mut path = before.to_vec();
    loop {
        if tokens[at].is_sign("{") {
            at += 1;
            while !tokens[at].is_sign("}") {
                at = read_tree(tokens, at, &path, is_public, into);
                at += usize::from(tokens[at].is_sign(","));
            }
            return at + 1;
        }
        path.push(tokens[at].word().unwrap_or("*").to_owned());
        at += 1;
        if tokens[at].is_sign("::") {
            at += 1;
            continue;
        }
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if tokens[at].word() == Some("as") {
            name = tokens[at + 1].word().map(str::to_owned).unwrap_or_default();
            at += 2;
        }
        into.push(Import { path, name, is_public });
        return at;
    }
}

/// Paths of several words in a file's body.
fn paths(body: &[Token]) -> Vec<Path> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let mut path: Path = body[at].word().map(str::to_owned).into_iter().collect();
        at += 1;
        while !path.is_empty() && body.get(at).is_some_and(|token| token.is_sign("::")) {
            let Some(word) = body.get(at + 1).and_then(Token::word) else { break };
            path.push(word.to_owned());
            at += 2;
        }
        if path.len() > 1 {
            found.push(path);
        }
    }
    found
}

// === impl House ===

impl House {
    /// A path from the crate's root; `None` if it leads out of the crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        let child = [module, std::slice::from_ref(first)].concat();
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let (_, parent) = module.split_last()?;
                let rest = if rest.first().is_some_and(|word| word == "super") {
                    rest.to_vec()
                } else {
                    [&["self".to_owned()], rest].concat()
                };
                self.absolute(parent, &rest)
            }
            _ if self.files.contains(&child) => Some([module, path].concat()),
            _ => None,
        }
    }

    /// The file that defines what a path names, through what others re-export.
    fn definition(&self, path: &[String]) -> Path {
        let mut path = path.to_vec();
        // A chain of re-exports is shorter than this; a glob's could go in a round.
        for _ in 0..8 {
            let length = (0..=path.len()).rev().find(|length| self.files.contains(&path[..*length])).unwrap_or(0);
            let (file, rest) = path.split_at(length);
            let Some((name, rest)) = rest.split_first() else { return file.to_vec() };
            let Some(exported) = self.exports.get(&(file.to_vec(), name.clone())) else { return file.to_vec() };
            path = [exported.as_slice(), rest].concat();
        }
        path
    }

    fn arrow(&self, module: &[String], written: &[String]) -> Option<Arrow> {
        let absolute = self.absolute(module, written).or_else(|| {
            // The first word may be a module that was imported.
            let (first, rest) = written.split_first()?;
            let import = self.imports.get(module)?.iter().find(|import| import.name == *first)?;
            let path = self.absolute(module, &import.path)?;
            self.files.contains(&path).then(|| [path.as_slice(), rest].concat())
        })?;
        let to = self.definition(&absolute);
        let name = |path: &[String]| path.join("/");
        let room = absolute.first().cloned().unwrap_or_default();
        (to != module).then(|| Arrow {
            from: name(module),
            to: name(&to),
            room,
            name: written.last().cloned().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::tokens;

    fn found(files: &[(&str, &str)]) -> BTreeSet<Arrow> {
        let sources: Vec<_> =
            files.iter().map(|(file, text)| Source { file: (*file).to_owned(), tokens: tokens(text) }).collect();
        arrows(&sources)
    }

    #[test]
    fn every_way_of_writing_a_path_is_read() {
        let leaf = ("a/leaf.rs", "pub struct X;");
        let room = ("a.rs", "mod leaf; mod user; pub(super) use leaf::X;");
        for text in [
            "use crate::a::leaf::X;",
            "use super::leaf::{self, X};",
            "use super::{leaf as other, std}; fn f() { other::X }",
            "fn f(x: &super::leaf::X) {}",
            "use crate::a::X;",
            "use crate::{a::{leaf::X}};",
            "fn f() { crate::a::X::new() }",
        ] {
            let arrows = found(&[leaf, room, ("a/user.rs", text)]);
            assert!(arrows.iter().any(|arrow| arrow.from == "a/user" && arrow.to == "a/leaf"), "{text}: {arrows:?}");
        }
        let arrows = found(&[leaf, room, ("a/user.rs", "use std::leaf::X; fn f() { b::leaf() }")]);
        assert!(arrows.iter().all(|arrow| arrow.from == "a"), "{arrows:?}");
    }

    #[test]
    fn a_circle_is_found_over_several_files() {
        let mut files = vec![
            ("a/one.rs", "use super::two::X;"),
            ("a/two.rs", "use crate::a::three;"),
            ("a/three.rs", "fn f() {}"),
            ("a.rs", "mod one; fn f() { one::f() }"),
        ];
        assert_eq!(circles(&found(&files)), Vec::<BTreeSet<&str>>::new());
        files[2].1 = "fn f() { super::one::f() }";
        assert_eq!(circles(&found(&files)), [BTreeSet::from(["a/one", "a/three", "a/two"])]);
        files[2].1 = "use super::f;";
        assert_eq!(circles(&found(&files)), [BTreeSet::from(["a", "a/one", "a/three", "a/two"])]);
    }
}
