//! The pages' tables say what the code says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hushpod::annotations::KEYS;
use hushpod::config::Config;
use hushpod::contract::PREFIX;
use hushpod::provider::ProviderSettings;
use hushpod::quantity::parse_duration;
use serde_json::json;

/// A page of the repository.
pub(crate) fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The annotation table as the constants make it.
fn annotation_table() -> String {
    let rows = KEYS.iter().map(|key| {
        let name = if key.name.ends_with('.') { format!("{}<name>", key.name) } else { key.name.to_owned() };
        format!("| `{PREFIX}{name}` | {} | {} |\n", key.meaning, key.default)
    });
    format!("| annotation | meaning | default |\n|---|---|---|\n{}", rows.collect::<String>())
}

#[test]
fn the_annotation_table_is_the_constants() {
    let page = page("src/annotations.md");
    let (_, rest) = page.split_once("<!-- annotations: tested against src/annotations.rs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    assert_eq!(table, annotation_table(), "paste this into src/annotations.md:\n{}", annotation_table());
}

#[test]
fn every_reserved_name_is_listed() {
    for name in hushpod::env_vars::RESERVED {
        assert!(page("src/exec.md").contains(&format!("`{name}`")), "{name}");
    }
}

/// The page of a type of store.
fn store_page(kind: &str) -> String {
    format!("src/provider/{}.md", if kind == "ssm" { "aws" } else { kind })
}

#[test]
fn every_provider_type_is_described() {
    for kind in ProviderSettings::TYPES {
        assert!(page("README.md").contains(&format!("`{kind}`")), "{kind}");
        assert!(page(&store_page(kind)).contains(&format!("`type: {kind}`")), "{kind}");
    }
}

/// Each type with the settings that it cannot do without.
fn smallest_settings() -> Vec<ProviderSettings> {
    let of = |kind: &str| match kind {
        "aws" | "ssm" => json!({"region": "eu-west-1"}),
        "azure" => json!({"address": "https://shop.vault.azure.net", "tenant": "common.example"}),
        "gcp" => json!({"auth": {"audience":
            "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/k8s/providers/shop"}}),
        "file" => json!({"path": "/srv"}),
        _ => json!({"address": "https://store.example"}),
    };
    let settings = ProviderSettings::TYPES.iter().map(|kind| {
        let mut settings = of(kind);
        settings["type"] = json!(kind);
        serde_json::from_value(settings).unwrap_or_else(|error| panic!("{kind}: {error}"))
    });
    settings.collect()
}

/// A table's line, cell by cell.
fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The table of stores, cell by cell; its first row names the types.
fn stores() -> Vec<Vec<String>> {
    let page = page("src/config.md");
    let (_, rest) = page.split_once("<!-- stores: tested against src/provider.rs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    table.lines().filter(|line| !line.starts_with("|---")).map(cells).collect()
}

/// The types that have a column, in its order.
fn kinds(stores: &[Vec<String>]) -> Vec<&str> {
    stores[0][1..].iter().map(|kind| kind.trim_matches('`')).collect()
}

/// What the table of stores says of a type in a row.
pub(crate) fn cell(row: &str, kind: &str) -> String {
    let stores = stores();
    let column = kinds(&stores).iter().position(|shown| *shown == kind).unwrap_or_else(|| panic!("no column {kind}"));
    let cells = stores.iter().find(|cells| cells[0] == row).unwrap_or_else(|| panic!("no row {row:?}"));
    cells[column + 1].clone()
}

/// The audience of the pod's token, as the table shows it.
fn audience(settings: &ProviderSettings) -> String {
    match settings.as_settings().default_audience() {
        None => "–".to_owned(),
        Some(audience) if audience.starts_with("https://iam.googleapis.com/") => "the provider's URL".to_owned(),
        Some(audience) => format!("`{audience}`"),
    }
}

#[test]
fn the_table_of_stores_says_what_the_types_say() {
    let stores = stores();
    let sorted = |kinds: &[&str]| kinds.iter().map(|&kind| kind.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&kinds(&stores)), sorted(&ProviderSettings::TYPES));
    for (kind, settings) in ProviderSettings::TYPES.iter().zip(smallest_settings()) {
        let minutes = settings.as_settings().default_refresh().as_secs() / 60;
        assert_eq!(cell("polled every, unless told", kind), format!("{minutes} min"), "{kind}");
        let mut shown = audience(&settings);
        if matches!(settings, ProviderSettings::Aws(_) | ProviderSettings::Ssm(_)) {
            let other = json!({"type": kind, "region": "eu-west-1", "auth": {"method": "pod-identity"}});
            shown = format!("{shown}; EKS Pod Identity: {}", audience(&serde_json::from_value(other).unwrap()));
        }
        assert_eq!(cell("audience of the pod's token", kind), shown, "{kind}");
        let widening = match settings.as_settings().parameters().widening {
            None => "all but `version`".to_owned(),
            Some([]) => "–".to_owned(),
            Some(names) => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        assert_eq!(cell("parameters that rules must name", kind), widening, "{kind}");
    }
}

/// What stands between backticks.
fn words(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What a configuration could have said instead: the complaint of a name that is not known lists all that are.
pub(crate) fn accepted(config: &str) -> BTreeSet<String> {
    let error = Config::from_yaml(config).unwrap_err().to_string();
    let known = [": expected one of ", " is not one of "].iter().find_map(|words| error.split_once(words));
    let (_, known) = known.unwrap_or_else(|| panic!("{config}: {error}"));
    known.split(", ").map(str::to_owned).collect()
}

/// Fields that every provider has beside its type's. Only the source lists them: serde is asked for no others.
pub(crate) fn common_fields() -> BTreeSet<String> {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/fields.rs")).unwrap();
    let (_, rest) = source.split_once("const FIELDS: [&'static str; ").unwrap();
    let (list, _) = rest.split_once("];\n").unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// All that a provider of a type can say: `field`, `field.inner` and `field=word`.
pub(crate) fn provider_fields(kind: &str) -> BTreeSet<String> {
    let provider = |fields: &str| format!("{{image: x, providers: {{a: {{{fields}}}}}}}");
    let mut known = accepted(&provider(&format!("type: {kind}, noSuchField: 1")));
    for (field, separator, value) in [
        ("auth", '.', "{noSuchField: 1}"),
        ("auth", '=', "{method: no-such-method}"),
        ("namespaces", '.', "{web: {noSuchField: 1}}"),
        ("allowParams", '=', "[no-such-param]"),
    ] {
        if known.contains(field) {
            let inner = accepted(&provider(&format!("type: {kind}, {field}: {value}")));
            known.extend(inner.iter().map(|inner| format!("{field}{separator}{inner}")));
        }
    }
    known.extend(common_fields());
    let rule = accepted(&provider("type: file, path: /srv, allow: [{noSuchField: 1}]"));
    known.extend(rule.iter().map(|inner| format!("allow.{inner}")));
    for (field, separator, value) in [
        ("caBundle", '.', "{noSuchField: 1}"),
        ("caBundle.labelSelector", '.', "{labelSelector: {noSuchField: 1}}"),
        ("caBundle.labelSelector.matchExpressions", '.', "{labelSelector: {matchExpressions: [{noSuchField: 1}]}}"),
        (
            "caBundle.labelSelector.matchExpressions.operator",
            '=',
            "{labelSelector: {matchExpressions: [{key: a, operator: x}]}}",
        ),
    ] {
        let inner = accepted(&provider(&format!("type: file, path: /srv, caBundle: {value}")));
        known.extend(inner.iter().map(|inner| format!("{field}{separator}{inner}")));
    }
    known
}

/// A page's tables, each with its first row.
fn tables(path: &str) -> Vec<Vec<Vec<String>>> {
    let page = page(path);
    let tables = page.split("\n\n").map(str::trim_start).filter(|block| block.starts_with('|'));
    tables.map(|table| table.lines().filter(|line| !line.starts_with("|---")).map(cells).collect()).collect()
}

/// The fields of a table's first column; `<…>` after one stands for any name.
fn fields(table: &[Vec<String>]) -> BTreeSet<String> {
    assert_eq!(table[0], ["field", "meaning", "default"]);
    let names = table[1..].iter().flat_map(|row| words(&row[0]));
    names.map(|name| name.split(".<").next().unwrap().to_owned()).collect()
}

/// A field's row.
fn row<'a>(table: &'a [Vec<String>], field: &str) -> &'a [String] {
    let has_it = |row: &&Vec<String>| words(&row[0]).iter().any(|name| name.split(".<").next() == Some(field));
    table.iter().find(has_it).unwrap_or_else(|| panic!("no row of {field}"))
}

/// The operator's fields, and those of every provider.
fn operators_tables() -> [Vec<Vec<String>>; 2] {
    let tables = tables("src/config.md").into_iter().filter(|table| table[0][0] == "field");
    tables.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn the_tables_of_the_operators_fields_are_the_codes() {
    let [top, common] = operators_tables();
    assert_eq!(fields(&top), accepted("noSuchField: 1"));
    let mut known = common_fields();
    known.insert("type".to_owned());
    assert_eq!(fields(&common), known);
    assert_eq!(words(&row(&common, "type")[1]), ProviderSettings::TYPES.map(str::to_owned).into());
    for kind in ProviderSettings::TYPES {
        for inner in provider_fields(kind).iter().filter_map(|field| field.strip_prefix("allow.")) {
            assert!(row(&common, "allow")[1].contains(&format!("{inner}: ")), "{inner}");
        }
        let bundle =
            provider_fields(kind).into_iter().filter(|field| field.starts_with("caBundle.") && !field.contains('='));
        for inner in bundle.filter_map(|field| field.rsplit('.').next().map(str::to_owned)) {
            assert!(page("src/config.md").contains(&format!("{inner}: ")), "{inner}");
        }
    }
}

#[test]
fn the_tables_of_the_stores_fields_are_the_codes() {
    for (kind, settings) in ProviderSettings::TYPES.iter().zip(smallest_settings()) {
        let tables = tables(&store_page(kind));
        let table = tables.iter().find(|table| table[0][0] == "field").unwrap();
        let code = provider_fields(kind);
        let mut own: BTreeSet<_> = code.iter().filter(|field| !field.contains('=')).cloned().collect();
        let is_inner = |field: &String| ["namespaces.", "allow.", "caBundle."].iter().any(|of| field.starts_with(of));
        own.retain(|field| field != "auth" && !is_inner(field));
        // Those of a login's method may stand in the table of methods.
        let in_cells = tables.iter().flatten().flatten().flat_map(|cell| words(cell));
        let mut documented: BTreeSet<_> = in_cells.filter(|word| word.starts_with("auth.")).collect();
        documented.extend(fields(table));
        // Those of every provider stand here, too, where this type has something to say of them.
        documented.extend(common_fields());
        assert_eq!(documented, own, "{kind}");
        for inner in code.iter().filter_map(|field| field.strip_prefix("namespaces.")) {
            assert!(row(table, "namespaces")[1].contains(inner), "{kind}: {inner}");
        }

        let methods: BTreeSet<_> = code.iter().filter_map(|field| field.strip_prefix("auth=")).collect();
        if methods.is_empty() {
            continue;
        }
        let login = row(table, "auth.method");
        let column = |table: &Vec<Vec<String>>| table[1..].iter().flat_map(|row| words(&row[0])).collect();
        let of_methods = tables.iter().filter(|table| ["auth method", "`auth.method`"].contains(&table[0][0].as_str()));
        let shown: Vec<BTreeSet<String>> = of_methods.map(column).chain([words(&login[1])]).collect();
        for shown in shown.iter().filter(|shown| !shown.is_empty()) {
            assert_eq!(shown.iter().map(String::as_str).collect::<BTreeSet<_>>(), methods, "{kind}");
        }
        assert!(shown.iter().any(|shown| !shown.is_empty()), "{kind}");
        let default = serde_json::to_value(&settings).unwrap()["auth"]["method"].clone();
        assert_eq!(login[2], format!("`{}`", default.as_str().unwrap()), "{kind}");
    }
}

#[test]
fn defaults_of_refresh_are_the_codes() {
    let [_, common] = operators_tables();
    let shown = &row(&common, "refresh")[2];
    for (kind, settings) in ProviderSettings::TYPES.iter().zip(smallest_settings()) {
        // The part that names the type, else the one that names none.
        let names = |part: &&str| part.contains(&format!("`{kind}`"));
        let part = shown.split("; ").find(names).or_else(|| shown.split("; ").find(|part| part.starts_with('`')));
        let duration = part.unwrap().trim_end_matches('`').rsplit('`').next().unwrap();
        assert_eq!(parse_duration(duration), Ok(settings.as_settings().default_refresh()), "{kind}: {shown}");
    }
    for kind in ["azure", "gcp"] {
        let tables = tables(&store_page(kind));
        let table = tables.iter().find(|table| table[0][0] == "field").unwrap();
        let place = ProviderSettings::TYPES.iter().position(|known| *known == kind).unwrap();
        let default = smallest_settings()[place].as_settings().default_refresh();
        assert_eq!(parse_duration(row(table, "refresh")[2].trim_matches('`')), Ok(default), "{kind}");
    }
}

/// What CI brings up is pinned in `tests/cluster`, and the README says what was tried.
#[test]
fn the_table_of_compatibility_has_the_versions_that_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster");
    let pinned = |name: &str| {
        let module = fs::read_to_string(root.join("go").join(name).join("go.mod")).unwrap();
        let line = module.lines().find(|line| line.starts_with("require ") && !line.ends_with('(')).unwrap().to_owned();
        line.split(' ').nth(2).unwrap().trim_start_matches('v').to_owned()
    };
    let wheel = |name: &str| {
        let script = fs::read_to_string(root.join(format!("lib/{name}.bash"))).unwrap();
        let (_, rest) = script.split_once("_VERSION=").unwrap_or_else(|| panic!("{name} pins nothing"));
        rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>()
    };
    let minor = |version: &str| version.rsplit_once('.').unwrap().0.to_owned();
    let page = page("README.md");
    let (_, rest) = page.split_once("\n## Compatibility\n").unwrap();
    let row = |name: &str| {
        let start = format!("| {name} |");
        rest.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row of {name}")).to_owned()
    };
    for (name, version) in [
        ("Kubernetes", pinned("kubernetes")),
        ("Kubernetes", pinned("kubernetes-1.34")),
        ("runtimes", format!("containerd {}", minor(&pinned("containerd")))),
        ("stores", format!("Vault {}", pinned("vault"))),
        ("stores", format!("moto {}", minor(&wheel("moto")))),
        ("stores", format!("ministack {}", minor(&wheel("ministack")))),
    ] {
        assert!(row(name).contains(&version), "{name}: {version} is not in the table");
    }
}

/// What holds the table of stores: below each row the types, what their cells claim, and the test that would fail if
/// that were not so, with its file below `tests/integration/` or `src/`. Tests of `suite.rs` run for each type.
const CELLS: &str = "
pods log in by
    vault | Kubernetes | contract/vault/sessions.rs | each_method_logs_in_at_its_own_path
    vault | JWT auth | contract/vault/sessions.rs | each_method_logs_in_at_its_own_path
    infisical | Kubernetes | contract/infisical/sessions.rs | each_method_logs_in_at_its_own_path
    infisical | OIDC | contract/infisical/sessions.rs | each_method_logs_in_at_its_own_path
    infisical | JWT auth | contract/infisical/sessions.rs | each_method_logs_in_at_its_own_path
    aws ssm | IRSA | contract/aws/logins.rs | each_method_serves_both_stores
    aws ssm | EKS Pod Identity | contract/aws/logins.rs | each_method_serves_both_stores
    azure | workload identity | contract/azure/logins.rs | p6_the_pods_token_is_shown_to_the_authority_alone
    azure | managed identity | contract/azure/logins.rs | a_managed_identity_asks_its_machine
    gcp | workload identity federation | contract/gcp/logins.rs | p6_the_pods_token_is_shown_to_the_token_service_alone
    gcp | metadata server | contract/gcp/logins.rs | a_machine_says_who_it_is
    file | – | provider/file/tests.rs | there_is_no_login_and_there_are_no_leases
laptops and CI by
    vault | token | contract/vault/sessions.rs | a_ready_made_token_is_used_and_left_alone
    vault | AppRole | contract/vault/sessions.rs | an_approle_logs_in
    infisical | access token | contract/infisical/sessions.rs | a_ready_made_token_is_used_and_left_alone
    infisical | universal auth | contract/infisical/sessions.rs | each_method_logs_in_at_its_own_path
    aws ssm | environment | contract/aws/logins.rs | each_method_serves_both_stores
    aws ssm | profile | contract/aws/logins.rs | each_method_serves_both_stores
    azure | service principal | contract/azure/logins.rs | a_person_or_job_logs_in_by_the_environment
    gcp | application default credentials | contract/gcp/logins.rs | a_service_accounts_key_signs_for_a_token
    gcp | application default credentials | contract/gcp/logins.rs | a_persons_login_is_refreshed_and_says_who_pays
    gcp | application default credentials | contract/gcp/logins.rs | a_federations_file_is_used_like_the_settings
    gcp | application default credentials | contract/gcp/logins.rs | credentials_are_where_googles_tools_look_for_them
    file | age identity file | provider/file/tests/encrypted.rs | an_identity_file_is_read_when_it_is_needed
parameters that rules must name
    vault | all but `version` | readme.rs | the_table_of_stores_says_what_the_types_say
    infisical | `env` | readme.rs | the_table_of_stores_says_what_the_types_say
    infisical | `project` | readme.rs | the_table_of_stores_says_what_the_types_say
    infisical | `recursive` | readme.rs | the_table_of_stores_says_what_the_types_say
    infisical | `dynamic` | readme.rs | the_table_of_stores_says_what_the_types_say
    infisical | `ttl` | readme.rs | the_table_of_stores_says_what_the_types_say
    aws ssm azure gcp file | – | readme.rs | the_table_of_stores_says_what_the_types_say
audience of the pod's token
    vault | `vault` | readme.rs | the_table_of_stores_says_what_the_types_say
    infisical | `infisical` | readme.rs | the_table_of_stores_says_what_the_types_say
    aws ssm | `sts.amazonaws.com` | readme.rs | the_table_of_stores_says_what_the_types_say
    aws ssm | EKS Pod Identity: `pods.eks.amazonaws.com` | readme.rs | the_table_of_stores_says_what_the_types_say
    azure | `api://AzureADTokenExchange` | readme.rs | the_table_of_stores_says_what_the_types_say
    gcp | the provider's URL | readme.rs | the_table_of_stores_says_what_the_types_say
    file | – | readme.rs | the_table_of_stores_says_what_the_types_say
reads
    vault | documents of any engine | contract/vault/values.rs | values_of_every_kind_are_read
    vault | documents of any engine | contract/vault/values.rs | an_old_kv_engine_has_no_versions
    vault | documents of any engine | contract/vault/leases.rs | what_is_asked_with_parameters_can_carry_a_lease
    vault | documents of any engine | contract/vault/leases.rs | a_certificate_says_when_it_expires
    infisical | folders | contract/infisical/values.rs | a_folder_is_one_request_whatever_is_taken_of_it
    infisical | single secrets | contract/infisical/values.rs | p5_a_hidden_value_is_a_denial_and_never_a_value
    aws | text | contract/suite.rs | values_are_exact
    aws | bytes | contract/suite.rs | values_are_exact
    aws | JSON keys | contract/aws/secrets.rs | names_and_arns_are_read
    ssm | parameters | contract/aws/parameters.rs | parameters_of_every_type_are_read
    ssm | trees | contract/aws/parameters.rs | a_tree_is_a_document_of_its_parameters
    azure | secrets | contract/suite.rs | values_are_exact
    azure | certificates | contract/azure/values.rs | a_certificate_is_the_secret_of_its_name
    gcp | versions | contract/suite.rs | a_pinned_version_stays_and_a_missing_one_says_so
    file | documents | provider/file/tests.rs | a_single_document_is_walked_by_its_keys
    file | documents | provider/file/tests.rs | a_directory_has_values_documents_and_directories
    file | values | provider/file/tests.rs | a_directory_has_values_documents_and_directories
    file | directories | provider/file/tests.rs | a_directory_has_values_documents_and_directories
    file | age | provider/file/tests/encrypted.rs | encrypted_files_are_decrypted_by_name_and_by_content_and_plain_ones_stay
    file | SOPS | provider/file/sops/tests.rs | what_sops_decrypts_is_what_we_decrypt
`?version=`
    vault infisical ssm gcp | number | contract/suite.rs | a_pinned_version_stays_and_a_missing_one_says_so
    infisical | of one secret | contract/infisical/values.rs | a_pin_is_not_answered_with_an_imports_secret
    infisical | of one secret | provider/infisical/tests.rs | p9_what_infisical_cannot_mean_is_refused_in_a_sentence
    aws | stage | contract/aws/secrets.rs | stages_follow_their_versions
    aws azure | id | contract/suite.rs | a_pinned_version_stays_and_a_missing_one_says_so
    ssm | label | contract/aws/parameters.rs | versions_and_labels_are_read_beside_the_present_one
    gcp | alias | contract/gcp/values.rs | an_alias_is_followed_when_it_moves
    file | – | provider/file/tests.rs | p9_paths_have_one_form_and_errors_say_which
leases
    vault | every engine that has them | contract/vault/leases.rs | fake_renewable_leases_are_renewed_up_to_their_maximum
    vault | every engine that has them | contract/vault/leases.rs | what_is_asked_with_parameters_can_carry_a_lease
    infisical | dynamic secrets | contract/infisical/leases.rs | a_credential_is_made_renewed_and_ended
    aws | – | contract/aws/secrets.rs | there_are_no_leases
    ssm | – | contract/aws/parameters.rs | there_are_no_leases
    azure | – | contract/azure/values.rs | there_are_no_leases
    gcp | – | contract/gcp/values.rs | there_are_no_leases
    file | – | provider/file/tests.rs | there_is_no_login_and_there_are_no_leases
\"has it changed?\"
    vault | KV v2: metadata's version | contract/vault/values.rs | a_rotation_is_seen_and_what_is_unchanged_is_not_read_again
    infisical | `ETag` | contract/infisical/values.rs | an_unchanged_folder_is_a_304_with_the_exact_etag
    infisical | answered 304 | contract/infisical/values.rs | an_unchanged_folder_is_a_304_with_the_exact_etag
    aws | `DescribeSecret` | contract/aws/secrets.rs | only_what_changed_is_read
    ssm | `GetParameters` | contract/aws/parameters.rs | many_parameters_take_few_calls
    ssm | `GetParametersByPath` | contract/aws/parameters.rs | a_tree_is_a_document_of_its_parameters
    ssm | not decrypted | contract/aws/parameters.rs | many_parameters_take_few_calls
    ssm | not decrypted | contract/aws/parameters.rs | a_tree_is_a_document_of_its_parameters
    azure | list of versions | contract/azure/values.rs | a_change_is_looked_for_without_the_value
    gcp | name of the version | contract/gcp/values.rs | a_change_is_looked_for_without_the_value
    file | events | provider/file/tests.rs | changes_are_told_wherever_they_happen
pushed changes
    vault aws ssm azure gcp | – | contract/suite.rs | nothing_is_pushed_unless_the_operator_wants_it
    infisical | `events: true` | contract/infisical/events.rs | a_change_is_pushed_and_read
    infisical | `events: true` | contract/infisical/events.rs | events_are_the_operators_choice
    file | always | provider/file/tests.rs | changes_are_told_wherever_they_happen
    file | always | provider/file/tests.rs | kubelets_swaps_are_told
polled every, unless told
    vault file | 1 min | readme.rs | the_table_of_stores_says_what_the_types_say
    infisical aws ssm azure gcp | 5 min | readme.rs | the_table_of_stores_says_what_the_types_say
requests an hour for 20 files of 20 secrets
    vault | 1,200 | contract/requests.rs | an_hour_without_a_change_costs_what_the_readme_says
    infisical | 12 a folder | contract/requests.rs | an_hour_without_a_change_costs_what_the_readme_says
    infisical | 12 a folder | contract/infisical/values.rs | a_folder_is_one_request_whatever_is_taken_of_it
    ssm | 24 | contract/requests.rs | an_hour_without_a_change_costs_what_the_readme_says
    aws azure gcp | 240 | contract/requests.rs | an_hour_without_a_change_costs_what_the_readme_says
    file | 0 | arrows.rs | a_store_of_files_asks_nobody
requests an hour for 20 files of one secret
    vault | 60 | contract/requests.rs | an_hour_without_a_change_costs_what_the_readme_says
    infisical aws ssm azure gcp | 12 | contract/requests.rs | an_hour_without_a_change_costs_what_the_readme_says
    file | 0 | arrows.rs | a_store_of_files_asks_nobody
";

/// What a cell claims, one by one.
fn claims(cell: &str) -> Vec<&str> {
    ["; ", ", ", " or "].iter().fold(vec![cell], |parts, by| parts.iter().flat_map(|part| part.split(by)).collect())
}

/// Whether a file of ours has a test of this name: one with an attribute, or one that a macro lists.
fn is_test(file: &str, name: &str) -> bool {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(text) =
        ["tests/integration", "src"].iter().find_map(|below| fs::read_to_string(root.join(below).join(file)).ok())
    else {
        return false;
    };
    let signatures = [format!("fn {name}("), format!("fn {name}<")];
    let Some(at) = signatures.iter().find_map(|signature| text.find(signature)) else { return false };
    let above = text[..at].trim_end_matches("async ").trim_end().lines().next_back().unwrap_or_default();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let times = text.split(|c| !is_word(c)).filter(|word| *word == name).count();
    above.contains("test]") || above.contains("test(") || times > 1
}

#[test]
fn every_cell_of_the_table_of_stores_has_a_test() {
    let suites = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/contract.rs")).unwrap();
    let mut held = BTreeSet::new();
    let mut row = "";
    for line in CELLS.lines().filter(|line| !line.is_empty()) {
        let Some(line) = line.strip_prefix("    ") else {
            row = line;
            continue;
        };
        let [kinds, claim, file, test] = line.split(" | ").collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        assert!(is_test(file, test), "{row}: {kinds}: {claim}: there is no test {test} in {file}");
        for kind in kinds.split(' ') {
            let is_run = file != "contract/suite.rs" || suites.contains(&format!("\n    of_{kind}: "));
            assert!(is_run, "{row}: {claim}: the suite does not run for {kind}");
            held.insert((row.to_owned(), kind.to_owned(), claim.to_owned()));
        }
    }
    let stores = stores();
    let kinds = kinds(&stores);
    let mut claimed = BTreeSet::new();
    for cells in &stores[1..] {
        assert_eq!(cells.len(), 1 + kinds.len(), "{cells:?}");
        for (kind, cell) in kinds.iter().zip(&cells[1..]) {
            claimed.extend(claims(cell).iter().map(|&claim| (cells[0].clone(), (*kind).to_owned(), claim.to_owned())));
        }
    }
    let without: Vec<_> = claimed.difference(&held).collect();
    assert!(without.is_empty(), "src/config.md says what no test holds: {without:#?}");
    let outdated: Vec<_> = held.difference(&claimed).collect();
    assert!(outdated.is_empty(), "tests hold what src/config.md does not say: {outdated:#?}");
}
