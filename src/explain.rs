//! `hushpod explain`: the pages of this repository, as the program carries them, by topic, annotation or field.

use std::fmt::Write as _;

use self::page::{PagePart, Section, Table, parse, slug};
use crate::contract::PREFIX;
use crate::process::terminal::wrap;
use crate::sentence::suggestion;

mod page;

/// A page by the name that one asks for.
struct Page {
    name: &'static str,
    text: &'static str,
    /// Other names of the same.
    aliases: &'static [&'static str],
}

/// In the order in which they are listed.
static PAGES: [Page; 24] = [
    Page { name: "hushpod", text: include_str!("../README.md"), aliases: &["readme"] },
    Page { name: "annotations", text: include_str!("annotations.md"), aliases: &[] },
    Page { name: "variables", text: include_str!("exec.md"), aliases: &["exec"] },
    Page { name: "csi", text: include_str!("csi.md"), aliases: &["driver"] },
    Page { name: "kubectl", text: include_str!("fleet.md"), aliases: &["fleet", "status", "who", "history"] },
    Page { name: "local", text: include_str!("local.md"), aliases: &["laptop", "ci", "run", "export"] },
    Page { name: "config", text: include_str!("config.md"), aliases: &["configuration"] },
    Page { name: "metrics", text: include_str!("metrics.md"), aliases: &["prometheus"] },
    Page { name: "audit", text: include_str!("audit.md"), aliases: &[] },
    Page { name: "vault", text: include_str!("provider/vault.md"), aliases: &["openbao"] },
    Page { name: "infisical", text: include_str!("provider/infisical.md"), aliases: &[] },
    Page { name: "aws", text: include_str!("provider/aws.md"), aliases: &["ssm"] },
    Page { name: "azure", text: include_str!("provider/azure.md"), aliases: &[] },
    Page { name: "gcp", text: include_str!("provider/gcp.md"), aliases: &["google"] },
    Page { name: "file", text: include_str!("provider/file.md"), aliases: &["sops", "age"] },
    Page { name: "chart", text: include_str!("../charts/hushpod/README.md"), aliases: &["helm"] },
    Page { name: "threat-model", text: include_str!("threat-model.md"), aliases: &["security", "threats"] },
    Page { name: "runbook", text: include_str!("../deploy/runbook.md"), aliases: &["alerts"] },
    Page { name: "gitops", text: include_str!("../deploy/gitops.md"), aliases: &["argocd", "flux"] },
    Page { name: "migrate", text: include_str!("../deploy/migrate.md"), aliases: &["migration", "vault-k8s"] },
    Page { name: "environments", text: include_str!("../deploy/environments/README.md"), aliases: &["kustomize"] },
    Page { name: "pipelines", text: include_str!("../deploy/ci/README.md"), aliases: &["github", "gitlab"] },
    Page { name: "changes", text: include_str!("../deploy/CHANGELOG.md"), aliases: &["changelog"] },
    Page { name: "design", text: include_str!("README.md"), aliases: &["architecture"] },
];

/// The page with the fields of every provider.
const CONFIG: &str = "config";
/// Lines where there is no terminal: as long as the pages'.
const WIDTH: usize = 120;

/// Nothing is known by this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown topic {asked:?}{nearest} (`hushpod explain` lists all)")]
pub struct UnknownTopic {
    asked: String,
    nearest: String,
}

/// What the pages say about a topic, an annotation, a field or a word; without one, which topics there are. Lines have at
/// most `width` columns, as far as words let them.
///
/// # Errors
/// [`UnknownTopic`] names the nearest one.
pub fn explain(asked: &str, width: Option<usize>) -> Result<String, UnknownTopic> {
    let width = width.unwrap_or(WIDTH);
    let asked = asked.trim();
    if asked.is_empty() {
        return Ok(topics(width));
    }
    let mut out = String::new();
    if let Some(page) = Page::named(asked) {
        for section in parse(page.text) {
            section.show(width, &mut out);
        }
        return Ok(out);
    }
    let rows = find(asked);
    if !rows.is_empty() {
        for row in rows {
            row.show(width, &mut out);
        }
        return Ok(out);
    }
    let wanted = slug(asked);
    for page in &PAGES {
        for section in below(&parse(page.text), &wanted) {
            section.show(width, &mut out);
        }
    }
    if out.is_empty() { Err(unknown(asked)) } else { Ok(out) }
}

/// What there is to ask for.
fn topics(width: usize) -> String {
    let mut out = String::from("TOPIC, and its sections, each of which can be asked for as well:\n\n");
    for page in &PAGES {
        let sections = parse(page.text);
        let titles: Vec<_> =
            sections.iter().filter(|section| section.level == 2).map(|section| slug(&section.title)).collect();
        let line = format!("  {:<13}{}", page.name, titles.join(", "));
        let _ = writeln!(out, "{}", wrap(&line, width, 15));
    }
    out.push_str(
        "\nAlso every annotation (mode, hushpod.dev/notify), field of the configuration (providers.vault.address), item of \
         hushpod.dev/secrets (secrets.format), metric and word (generation):\n\n  hushpod explain notify\n",
    );
    wrap(&out, width, 0)
}

/// A section by its title, with those below it.
fn below<'a>(sections: &'a [Section], wanted: &str) -> &'a [Section] {
    let Some(first) = sections.iter().position(|section| slug(&section.title) == wanted) else { return &[] };
    let Some((section, rest)) = sections.get(first..).and_then(<[_]>::split_first) else { return &[] };
    let more = rest.iter().take_while(|next| next.level > section.level).count();
    sections.get(first..=first + more).unwrap_or_default()
}

/// A table's row that explains something.
struct Row {
    page: &'static str,
    table: Table,
}

/// Rows for a name: of the page that it begins with, of the configuration's, of all.
fn find(asked: &str) -> Vec<Row> {
    if asked.starts_with(PREFIX) {
        let is_annotation = |known: &str| known.starts_with(PREFIX);
        return rows_where(None, |cells| {
            names(cells).iter().any(|known| is_annotation(known) && is_about(known, asked))
        });
    }
    let name = asked.strip_prefix("config.").unwrap_or(asked);
    let (page, field, whole) = match name.strip_prefix("providers.").map(|rest| rest.split_once('.')) {
        // A provider is called as its operator likes: its type may be another.
        Some(Some((provider, field))) => (Page::named(provider), field, field),
        _ => match name.split_once('.') {
            Some(("secrets" | "defaults", field)) => (Page::named("annotations"), field, field),
            Some((first, field)) if Page::named(first).is_some() => (Page::named(first), field, name),
            _ => (None, name, name),
        },
    };
    let searches: [&dyn Fn() -> Vec<Row>; 3] = [
        &|| rows_of(page, field),
        &|| if page.is_some() { rows_of(Page::named(CONFIG), field) } else { Vec::new() },
        &|| rows_of(None, whole),
    ];
    searches.iter().map(|search| search()).find(|rows| !rows.is_empty()).unwrap_or_default()
}

/// Rows of a page, or of all, that are about a name, or about what it is a part of.
fn rows_of(page: Option<&'static Page>, name: &str) -> Vec<Row> {
    let found = rows_where(page, |cells| names(cells).iter().any(|known| is_about(known, name)));
    match name.rsplit_once('.') {
        Some((whole, part)) if found.is_empty() => rows_where(page, |cells| {
            let has_part = cells.iter().skip(1).any(|cell| cell.contains(&format!("{part}:")));
            has_part && names(cells).iter().any(|known| is_about(known, whole))
        }),
        _ => found,
    }
}

fn rows_where(page: Option<&'static Page>, is_wanted: impl Fn(&[String]) -> bool) -> Vec<Row> {
    let mut found = Vec::new();
    for page in page.map_or(&PAGES[..], std::slice::from_ref) {
        for part in parse(page.text).into_iter().flat_map(|section| section.parts) {
            let PagePart::Table(Table { head, rows }) = part else { continue };
            let rows = rows.into_iter().filter(|cells| is_wanted(cells));
            found.extend(rows.map(|row| Row { page: page.name, table: Table { head: head.clone(), rows: vec![row] } }));
        }
    }
    found
}

/// What a row is asked for by: what is quoted in its first cell, else the words of it.
fn names(cells: &[String]) -> Vec<&str> {
    let Some(first) = cells.first() else { return Vec::new() };
    if first.contains('`') {
        first.split('`').skip(1).step_by(2).collect()
    } else {
        first.split(", ").filter(|word| !word.is_empty()).collect()
    }
}

/// Whether a row's name is meant: `file.<name>` stands for `file` and `file.anything`, a series for its labels.
fn is_about(known: &str, asked: &str) -> bool {
    let (known, asked) = match known.strip_prefix(PREFIX) {
        Some(known) => (known, asked.strip_prefix(PREFIX).unwrap_or(asked)),
        None => (known, asked),
    };
    let known = known.split('{').next().filter(|series| !series.is_empty()).unwrap_or(known);
    match known.split_once(".<") {
        Some((family, _)) => asked == family || asked.strip_prefix(family).is_some_and(|rest| rest.starts_with('.')),
        None => known == asked,
    }
}

fn unknown(asked: &str) -> UnknownTopic {
    let mut known: Vec<String> = PAGES.iter().map(|page| page.name.to_owned()).collect();
    for page in &PAGES {
        let sections = parse(page.text);
        known.extend(sections.iter().map(|section| slug(&section.title)));
    }
    let rows = rows_where(None, |_| true);
    let in_rows = rows.iter().flat_map(|row| &row.table.rows).flat_map(|cells| names(cells));
    known.extend(in_rows.map(|name| {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        name.split(['{', '<']).next().unwrap_or(name).trim_end_matches('.').to_owned()
    }));
    // A sign of a table is near to every short word.
    let known: Vec<_> = known.iter().map(String::as_str).filter(|name| name.len() > 1).collect();
    // Of a key the family, unless that is one; of a field the last word.
    let word = match asked.strip_prefix(PREFIX) {
        Some(key) => key.split('.').next().filter(|family| !known.contains(family)).unwrap_or(key),
        None => asked.rsplit('.').next().unwrap_or(asked),
    };
    // Without one that is near, it would list them all.
    let nearest = suggestion(word, &known);
    let nearest = if nearest.contains("did you mean") { nearest } else { String::new() };
    UnknownTopic { asked: asked.to_owned(), nearest }
}

// === impl Page ===

impl Page {
    fn named(name: &str) -> Option<&'static Self> {
        PAGES.iter().find(|page| page.name == name || page.aliases.contains(&name))
    }
}

// === impl Row ===

impl Row {
    fn show(&self, width: usize, out: &mut String) {
        for row in &self.table.rows {
            self.table.show(row, width, out);
            let _ = writeln!(out, "    more: hushpod explain {}", self.more(row));
        }
    }

    /// The section that the row points to by "see …", else its page.
    fn more(&self, row: &[String]) -> String {
        let titles: Vec<_> = PAGES.iter().flat_map(|page| parse(page.text)).map(|section| section.title).collect();
        let pointed = row.iter().flat_map(|cell| cell.split("see ").skip(1));
        let mut sections = pointed
            .filter_map(|text| titles.iter().filter(|title| text.starts_with(*title)).max_by_key(|title| title.len()));
        sections.next().map_or_else(|| self.page.to_owned(), |title| slug(title))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::KEYS;
    use crate::provider::ProviderSettings;

    /// What is asked for, and what the answer has, in this order.
    #[test]
    fn topics_annotations_fields_and_words_are_explained() {
        for (asked, parts) in [
            ("", &["annotations", "live-controls", "vault", "chart", "hushpod explain notify"][..]),
            ("vault", &["Vault and OpenBao", "What the store's admin runs", "writableMounts", "Errors"]),
            ("ssm", &["Parameter Store"]),
            ("sops", &["age and SOPS"]),
            ("hushpod.dev/notify", &["hushpod.dev/notify", "after a change", "default: none"]),
            ("notify", &["hushpod.dev/notify", "after a change"]),
            ("mode", &["hushpod.dev/mode", "default: `sidecar`", "more: hushpod explain modes"]),
            ("hushpod.dev/file.db-password", &["file.<name>", "delivers one value"]),
            ("env.HF_TOKEN", &["env.<name>", "one environment variable"]),
            ("providers.vault.address", &["`address`", "https://", "more: hushpod explain vault"]),
            ("config.providers.gcp.auth.audience", &["`auth.audience`", "workloadIdentityPools"]),
            ("vault.tokenSeconds", &["`tokenSeconds`", "default: 600"]),
            ("providers.prod.tokenSeconds", &["`tokenSeconds`"]),
            ("providers.vault.allow.requests", &["`allow`", "requests: [GLOB]"]),
            ("defaultProvider", &["`defaultProvider`"]),
            ("defaults.mode", &["hushpod.dev/mode"]),
            ("secrets.format", &["`format`", "dotenv"]),
            ("hushpod_held", &["hushpod_held", "1 while"]),
            ("live controls", &["Live controls", "kubectl annotate"]),
            ("live-controls", &["Live controls", "kubectl annotate"]),
            ("generation", &["generation", "one complete"]),
            ("migrate", &["Order of the steps", "hushpod.dev/mount-path: /vault/secrets", "From External Secrets"]),
            ("agent-inject-perms-NAME", &["agent-inject-perms-NAME", "file-mode", "more: hushpod explain migrate"]),
            ("who can read the files", &["Who can read the files", "0440"]),
            ("is asked with parameters", &["writableMounts"]),
        ] {
            let text = explain(asked, Some(80)).unwrap_or_else(|error| panic!("{error}"));
            let mut rest = text.as_str();
            for part in parts {
                let at = rest.find(part).unwrap_or_else(|| panic!("{asked:?}: no {part:?} in {rest}"));
                rest = &rest[at..];
            }
        }
    }

    #[test]
    fn every_annotation_and_type_of_store_is_explained() {
        for key in KEYS {
            let name = key.name.trim_end_matches('.');
            let text = explain(&format!("{PREFIX}{name}"), Some(1000)).unwrap_or_else(|error| panic!("{error}"));
            assert!(text.contains(&format!("`{PREFIX}{}", key.name)) && text.contains(key.meaning), "{name}: {text}");
        }
        for kind in ProviderSettings::TYPES {
            assert!(explain(kind, None).unwrap().contains(&format!("type: {kind}")), "{kind}");
        }
    }

    #[test]
    fn p9_an_unknown_topic_names_the_nearest() {
        for (asked, nearest) in [
            ("vualt", "; did you mean \"vault\"?"),
            ("hushpod.dev/notfy", "; did you mean \"notify\"?"),
            ("hushpod.dev/fiel.a", "; did you mean \"file\"?"),
            ("providers.vault.adress", "; did you mean \"address\"?"),
            ("defaultProvidr", "; did you mean \"defaultProvider\"?"),
            ("rollbak-of-everything-at-once", ""),
        ] {
            let error = explain(asked, None).unwrap_err();
            assert_eq!((error.asked.as_str(), error.nearest.as_str()), (asked, nearest), "{error}");
        }
    }

    #[test]
    fn lines_fit_the_terminal_and_nothing_of_a_page_is_lost() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        for page in &PAGES {
            let (narrow, wide) = (explain(page.name, Some(72)).unwrap(), explain(page.name, Some(400)).unwrap());
            assert_eq!(words(&narrow), words(&wide), "{}", page.name);
            let parts = parse(page.text).into_iter().flat_map(|section| section.parts);
            let code: Vec<_> =
                parts.filter_map(|part| if let PagePart::Code(lines) = part { Some(lines) } else { None }).collect();
            let is_code = |line: &str| code.iter().flatten().any(|written| line.trim() == written.trim());
            for line in narrow.lines().filter(|line| line.chars().count() > 72 && !is_code(line)) {
                assert!(!line.trim_start().contains(' '), "{}: {line}", page.name);
            }
        }
    }
}
