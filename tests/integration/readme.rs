//! The README's tables say what the code says.

use std::collections::BTreeSet;
use std::fs;

use hushpod::annotations::{KEYS, PREFIX};
use hushpod::provider::ProviderSettings;
use serde_json::json;

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
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
    let readme = readme();
    let (_, rest) = readme.split_once("<!-- annotations: tested against src/annotations.rs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    assert_eq!(table, annotation_table(), "paste this into the README:\n{}", annotation_table());
}

#[test]
fn every_reserved_name_is_listed() {
    for name in hushpod::environment::RESERVED {
        assert!(readme().contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_provider_type_is_described() {
    for name in ProviderSettings::TYPES {
        assert!(readme().contains(&format!("`{name}`")), "{name}");
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

/// The table of stores, cell by cell; its first row names the types.
fn stores() -> Vec<Vec<String>> {
    let readme = readme();
    let (_, rest) = readme.split_once("<!-- stores: tested against src/provider.rs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end -->").unwrap();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
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
            let is_run = file != "contract/suite.rs" || suites.contains(&format!("    of_{kind}: crate::contract::"));
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
    assert!(without.is_empty(), "the README says what no test holds: {without:#?}");
    let outdated: Vec<_> = held.difference(&claimed).collect();
    assert!(outdated.is_empty(), "tests hold what the README does not say: {outdated:#?}");
}
